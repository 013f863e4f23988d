"""`batch_size: auto` on a GPU is measured by steps that leave nothing; here by meters that a CPU can have, too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from finetune_harness import Recipe

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def found(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What walk_measuring.py found."""
    work = tmp_path_factory.mktemp("measuring")
    assert recipe.bases is not None
    spec = recipe.spec(work, base=str(recipe.bases / "tdt.nemo"))
    script = repo / "tests" / "recipes" / "finetune" / "walk_measuring.py"
    done = subprocess.run([str(recipe.python), str(script), str(work), str(spec)], env=recipe.environment(),
                          capture_output=True, text=True, timeout=2400, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    made: dict[str, Any] = json.loads((work / "found.json").read_text(encoding="utf-8"))
    return made


def test_the_largest_batch_that_fits_is_taken_and_a_step_stays_the_same_rows(found: dict[str, Any]) -> None:
    assert (found["more"]["batch"], found["more"]["tried"]) == ([4, 2], [2, 4, 8])
    assert found["more"]["said"] == ["batch 4 x 2: tried on this GPU of 10.0 GB (2: 4.0 GB, 4: 8.0 GB, 8: 16.0 GB)"]


def test_memory_that_runs_out_in_a_trial_is_one_that_does_not_fit(found: dict[str, Any]) -> None:
    assert (found["out of memory"]["batch"], found["out of memory"]["tried"]) == ([1, 8], [2])
    assert "2: too much" in found["out of memory"]["said"][0]


def test_a_batch_that_was_asked_for_is_not_measured_and_auto_is(found: dict[str, Any]) -> None:
    assert (found["asked for"]["batch"], found["asked for"]["tried"]) == ([4, 2], [])
    assert found["auto"]["tried"] and found["auto"]["said"]


def test_what_was_tried_changes_no_bit_of_what_is_learned(found: dict[str, Any]) -> None:
    assert found["differing"] == {"more": [], "roomy": []}


def test_a_resume_takes_no_more_than_its_checkpoint_and_less_where_less_fits(found: dict[str, Any]) -> None:
    assert (found["more memory"]["batch"], found["more memory"]["tried"]) == ([4, 2], [2, 4, 8])
    assert (found["less memory"]["batch"], found["less memory"]["tried"]) == ([1, 8], [2])
