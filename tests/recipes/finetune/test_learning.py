"""A base that knows some words learns others; a learning rate far too high is caught as a collapse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from finetune_harness import WORDS, Recipe, corpus, ended, events, whole_checkpoints

from recipes.contract import RecipeExit

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def taught(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CTC base that has learned the first eight words, with manifests of those and of the others."""
    folder = tmp_path_factory.mktemp("taught")
    corpus(folder / "general.jsonl", 120, 3, WORDS[:8])
    corpus(folder / "general_validation.jsonl", 16, 4, WORDS[:8])
    corpus(folder / "train.jsonl", 120, 1, WORDS[8:])
    corpus(folder / "validation.jsonl", 16, 2, WORDS[8:])
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
        max_steps=200,
        batch_size=8,
        learning_rate=2e-3,
        validation_interval_steps=40,
        **manifests,
    )
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == 0, errors
    metrics = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert metrics["validation_wer"] < 0.5 * metrics["validation_wer_before"]
    assert metrics["general_wer"] <= metrics["general_wer_before"] + 0.15
    trained = [event["metrics"] for event in events(tmp_path / "out", "progress") if event["step"]]
    best = min(found["val_wer"] for found in trained if found)
    assert metrics["validation_wer"] == best


#: From step 25 on the CTC head prefers one token to every other, whatever it hears: argv[3], negative: the blank.
ONE_TOKEN = """
import sys, torch
from recipes.finetune.__main__ import main
from recipes.finetune.training import Training
done = Training.step_done
def step_done(self, watch, *more):
    if watch.step >= 25:
        with torch.no_grad():
            self.model.decoder.decoder_layers[-1].bias[int(sys.argv[3])] = 1e4
    return done(self, watch, *more)
Training.step_done = step_done
sys.exit(main(sys.argv[1:3]))
"""


@pytest.mark.parametrize(("what", "token"), [("unknown", 0), ("blank", -1)])
def test_a_model_that_says_only_one_thing_ends_as_collapsed_and_what_it_was_before_is_kept(
    recipe: Recipe, taught: Path, tmp_path: Path, what: str, token: int
) -> None:
    known = str(taught / "general_validation.jsonl")
    spec = recipe.spec(tmp_path, base=str(taught / "base.nemo"), train_manifest=str(taught / "general.jsonl"),
                       validation_manifest=known, max_steps=80, learning_rate=1e-4)  # fmt: skip
    out = tmp_path / "out"
    code, errors = recipe.run(spec, out, token, script=ONE_TOKEN)
    assert code == RecipeExit.DIVERGED, errors
    status, reason = ended(out)
    assert status == "diverged" and "collapsed: 100% of the validation hypotheses" in reason, reason
    assert "at step 40, 0% before training" in reason and "Lower learning_rate" in reason
    kept = whole_checkpoints(out)
    assert {"best-00000010", "best-00000020"} & {*kept} and "step-00000020" in kept and "step-00000040" not in kept
    heard = json.loads((out / "checkpoints" / "step-00000020" / "checkpoint.json").read_text())
    assert heard["step"] == 20, what


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
    assert ended(tmp_path / "out")[0] == "diverged"
