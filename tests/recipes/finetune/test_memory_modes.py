"""Ways to save memory: activation checkpointing changes nothing, optimizers of 8 bits learn as AdamW does.

LAUNCHER_TEST_METHODS=1 (make test-methods) compares the loss curves of more seeds.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finetune_harness import Recipe
from pydantic import ValidationError

from recipes.contract import RecipeExit
from recipes.finetune.spec import FinetuneSpec

pytestmark = pytest.mark.nemo
SEEDS = 5 if os.environ.get("LAUNCHER_TEST_METHODS") else 1
WAYS = ("adamw", "adamw_8bit", "adamw_8bit of bf16", "adamw_8bit_in_backward")


@pytest.fixture(scope="module")
def walk(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """What walk_memory.py found on the tiny TDT base."""

    def run(*more: object) -> dict[str, Any]:
        work = tmp_path_factory.mktemp("memory")
        assert recipe.bases is not None
        spec = recipe.spec(work, base=str(recipe.bases / "tdt.nemo"), max_steps=8)
        script = repo / "tests" / "recipes" / "finetune" / "walk_memory.py"
        command = [str(recipe.python), str(script), str(work), str(spec), *map(str, more)]
        done = subprocess.run(
            command, env=recipe.environment(), capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads((work / "found.json").read_text())
        return found

    return run


def test_layers_that_run_again_change_no_bit_and_every_optimizer_resumes_where_it_was(
    walk: Callable[..., dict[str, Any]],
) -> None:
    found = walk()
    for method, seen in found["again"].items():
        assert seen["runs"] > 8 * 3, "two layers and the subsampling, each step"
        assert (seen["differing"], seen["losses"]) == ([], True), method
    assert set(found["resumed"]) == set(WAYS)
    for name, seen in found["resumed"].items():
        assert seen["resumed"] and seen["as_the_base"], name
        assert seen["moved"] > 60, name
        assert seen["differing"] == [], name


def test_8_bits_learn_as_well_as_32(walk: Callable[..., dict[str, Any]]) -> None:
    curves = walk(SEEDS)["curves"]
    mean = {name: sum(each) / len(each) for name, each in curves.items()}
    assert set(mean) == set(WAYS)
    for name in WAYS[1:]:
        assert mean[name] < 1.1 * mean["adamw"], curves


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"precision": "bf16-true"}, "adamw_8bit"),
        ({"precision": "bf16-true", "optimizer": "adamw_8bit", "method": "lora"}, "for method full"),
        ({"optimizer": "adamw_8bit_in_backward", "method": "lora_decoder"}, "for method full"),
        ({"optimizer": "adamw_8bit_in_backward", "precision": "32"}, "precision auto or bf16-true"),
        ({"optimizer": "adamw_8bit_in_backward", "accumulate_grad_batches": 2}, "accumulate_grad_batches must be 1"),
        ({"optimizer": "adamw_8bit_in_backward", "gradient_clip_val": 1.0}, "gradient_clip_val must be 0"),
        ({"optimizer": "adamw_8bit_in_backward", "devices": 2}, "devices must be 1"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        FinetuneSpec(train_manifest="t", validation_manifest="v", **settings)


def test_memory_that_runs_out_in_the_backward_mode_ends_in_words(recipe: Recipe, tmp_path: Path) -> None:
    """Its batch is its step, so it is never halved; activation checkpointing is tried, then it is said what to do."""
    assert recipe.bases is not None
    spec = recipe.spec(
        tmp_path, base=str(recipe.bases / "tdt.nemo"), optimizer="adamw_8bit_in_backward", max_steps=2, batch_size=2
    )
    code, errors = recipe.run(spec, tmp_path / "out", script=ALWAYS_OUT)
    assert code == RecipeExit.OUT_OF_MEMORY, errors[-2000:]
    assert "with 2 rows a pass" in errors
    told = (tmp_path / "out" / "events.jsonl").read_text()
    assert "going on with activation checkpointing" in told


ALWAYS_OUT = """
import sys
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
def training_step(self, *args):
    raise torch.OutOfMemoryError("as a GPU says it")
EncDecRNNTBPEModel.training_step = training_step
from recipes.finetune.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
