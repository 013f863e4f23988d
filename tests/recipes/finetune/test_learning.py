"""A base that knows some words learns others; a learning rate far too high is caught as a collapse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from finetune_harness import WORDS, Recipe, corpus, events

from recipes.contract import RecipeExit

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def taught(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CTC base that has learned the first eight words, with manifests of those and of the others."""
    folder = tmp_path_factory.mktemp("taught")
    corpus(folder / "general.jsonl", 40, 3, WORDS[:8])
    corpus(folder / "general_validation.jsonl", 8, 4, WORDS[:8])
    corpus(folder / "train.jsonl", 40, 1, WORDS[8:])
    corpus(folder / "validation.jsonl", 10, 2, WORDS[8:])
    (folder / "texts.txt").write_text(" ".join(WORDS) + "\n", encoding="utf-8")
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "ctc", "--out", folder / "base.nemo"]
    build += ["--corpus", folder / "texts.txt", "--train", folder / "general.jsonl", "--steps", "300"]
    command = [str(recipe.python), *map(str, build)]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    return folder


def test_the_new_words_are_learned_and_both_wers_are_told(recipe: Recipe, taught: Path, tmp_path: Path) -> None:
    names = ("train", "validation", "general", "general_validation")
    manifests = {f"{name}_manifest": str(taught / f"{name}.jsonl") for name in names}
    spec = recipe.spec(
        tmp_path,
        base=str(taught / "base.nemo"),
        max_steps=280,
        batch_size=8,
        learning_rate=4e-3,
        validation_interval_steps=40,
        **manifests,
    )
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == 0, errors
    metrics = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert metrics["validation_wer"] < 0.7 * metrics["validation_wer_before"]
    assert metrics["general_wer"] <= metrics["general_wer_before"] + 0.3
    trained = [event["metrics"] for event in events(tmp_path / "out", "progress") if event["step"]]
    best = min(found["val_wer"] for found in trained if found)
    assert metrics["validation_wer"] == best


def test_a_model_that_falls_silent_ends_as_collapsed(recipe: Recipe, taught: Path, tmp_path: Path) -> None:
    spec = recipe.spec(
        tmp_path,
        base=str(taught / "base.nemo"),
        train_manifest=str(taught / "train.jsonl"),
        validation_manifest=str(taught / "general_validation.jsonl"),
        max_steps=200,
        learning_rate=0.3,
        validation_interval_steps=20,
    )
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == RecipeExit.DIVERGED, errors
    assert "collapsed" in errors and "learning_rate" in errors
    assert not (tmp_path / "out" / "COMPLETE.json").exists()
