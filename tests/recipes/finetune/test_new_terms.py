"""A base that knows some words learns terms that it never heard, among those it knows, and forgets none of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from finetune_harness import WORDS, Recipe, corpus

from recipes.contract import RecipeExit

pytestmark = [pytest.mark.nemo, pytest.mark.slow("LAUNCHER_TEST_METHODS")]  # make test-methods

KNOWN, TERMS = WORDS[:11], WORDS[11:]


@pytest.fixture(scope="module")
def words(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TDT base that knows eleven words, and sentences in which four others stand among them."""
    folder = tmp_path_factory.mktemp("terms")
    corpus(folder / "general.jsonl", 160, 3, KNOWN)
    corpus(folder / "general_validation.jsonl", 40, 4, KNOWN)
    corpus(folder / "train.jsonl", 60, 1, [*KNOWN[:4], *TERMS])
    corpus(folder / "validation.jsonl", 30, 2, [*KNOWN[4:8], *TERMS])  # terms in a company that is new, too
    (folder / "texts.txt").write_text(" ".join(WORDS) + "\n", encoding="utf-8")
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "tdt", "--out", folder / "base.nemo"]
    build += ["--corpus", folder / "texts.txt", "--train", folder / "general.jsonl", "--steps", "1000"]
    subprocess.run([str(recipe.python), *map(str, build)], check=True, capture_output=True, timeout=900)
    return folder


@pytest.mark.parametrize("method", ["full", "lora_decoder"])
def test_new_terms_are_learned_and_the_general_set_stays_within_a_twentieth(
    recipe: Recipe, words: Path, tmp_path: Path, method: str
) -> None:
    names = ("train", "validation", "general", "general_validation")
    manifests = {f"{name}_manifest": str(words / f"{name}.jsonl") for name in names}
    spec = recipe.spec(
        tmp_path, base=str(words / "base.nemo"), method=method, max_steps=300, batch_size=8, learning_rate=3e-3,
        replay_fraction=0.5, validation_interval_steps=50, **manifests,
    )  # fmt: skip
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == RecipeExit.DONE, errors
    found = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert found["general_wer_before"] < 0.1 < 0.3 < found["validation_wer_before"], found
    assert found["validation_wer"] < 0.5 * found["validation_wer_before"], found
    assert found["general_wer"] <= found["general_wer_before"] + 0.05, found
