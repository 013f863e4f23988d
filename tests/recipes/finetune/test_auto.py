"""What `auto` becomes when the recipe is started without a launcher that chose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finetune_harness import Recipe, events

from recipes.contract import RecipeExit

pytestmark = pytest.mark.nemo


def test_auto_is_resolved_and_said_and_another_split_of_the_same_rows_is_the_same_run(
    recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = {"method": "auto", "max_steps": 2, "validation_interval_steps": 2}
    code, errors = recipe.run(recipe.spec(tmp_path / "a", batch_size="auto", **asked), out)
    assert code == RecipeExit.DONE, errors
    info = json.loads((out / "training_run_info.json").read_text(encoding="utf-8"))
    assert info["method"] == "full"
    assert info["hyper_parameters"]["batch_size"] == 8
    said = [event["message"] for event in events(out, "note")]
    assert {"method full: it fits", "batch 8: it fits"} <= set(said)
    split = recipe.spec(tmp_path / "b", batch_size=4, accumulate_grad_batches=2, **asked)
    code, errors = recipe.run(split, out)
    assert code == RecipeExit.DONE, errors
    other = recipe.spec(tmp_path / "c", batch_size=4, **asked)
    code, errors = recipe.run(other, out)
    assert code == RecipeExit.BAD_INPUT
    assert "other settings" in errors
