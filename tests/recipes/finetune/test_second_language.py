"""A base that knows one language learns another that it could not spell: the new one comes, the old one stays."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from finetune_harness import WORDS, Recipe, corpus, events
from second_language import second_language

from recipes.contract import RecipeExit

pytestmark = [pytest.mark.nemo, pytest.mark.slow("LAUNCHER_TEST_METHODS")]  # make test-methods


@pytest.fixture(scope="module")
def two_languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old language (general sets) and the new one (train, validation)."""
    folder = tmp_path_factory.mktemp("languages")
    corpus(folder / "general.jsonl", 160, 3)
    corpus(folder / "general_validation.jsonl", 30, 4)
    second_language(folder / "train.jsonl", 60, 1)
    second_language(folder / "validation.jsonl", 16, 2)
    (folder / "texts.txt").write_text(" ".join(WORDS) + "\n", encoding="utf-8")
    return folder


def spec_of(folder: Path, base: Path, **settings: Any) -> dict[str, Any]:
    names = ("train", "validation", "general", "general_validation")
    manifests = {f"{name}_manifest": str(folder / f"{name}.jsonl") for name in names}
    taught = {"max_steps": 400, "batch_size": 8, "validation_interval_steps": 50, "replay_fraction": 0.7}
    return {**manifests, **taught, "base": str(base), "tokenizer_pieces": 64, "learning_rate": 2e-3, **settings}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("tdt", {}),
        ("hybrid", {}),
        ("tdt", {"method": "lora_decoder", "learning_rate": 5e-3}),
        ("tdt", {"devices": 2}),
    ],
)
def test_the_new_language_is_learned_and_the_old_one_is_not_forgotten(
    recipe: Recipe, repo: Path, two_languages: Path, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", kind, "--out", tmp_path / "base.nemo"]
    build += ["--corpus", two_languages / "texts.txt", "--train", two_languages / "general.jsonl", "--steps", "1000"]
    subprocess.run([str(recipe.python), *map(str, build)], check=True, capture_output=True, timeout=900)
    spec = recipe.spec(tmp_path, **spec_of(two_languages, tmp_path / "base.nemo", **settings))
    command = [str(recipe.python), "-m", "recipes.extend_vocabulary", str(spec), str(tmp_path / "out")]
    done = subprocess.run(command, env=recipe.environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == RecipeExit.DONE, done.stderr[-3000:]
    found = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert found["proof_clips"] == 30
    assert all(same >= 29 for same in found["proof_identical"].values())
    assert len(found["proof_identical"]) == (2 if kind == "hybrid" else 1)
    assert found["general_wer_before"] < 0.1 and found["validation_wer_before"] > 0.9
    assert found["validation_wer"] <= found["validation_wer_before"] / 2
    assert found["general_wer"] <= found["general_wer_before"] + 0.05
    assert events(tmp_path / "out", "stage")[-1]["name"] in ("major", "converged")


@pytest.mark.apt
def test_english_prompts_stay_and_russian_ones_are_learned_of_recorded_speakers(
    recipe: Recipe, repo: Path, tmp_path: Path
) -> None:
    script = repo / "tests" / "recipes" / "finetune" / "prompts.py"
    for language, letters in (("en", "a-z'"), ("ru", "а-яё")):
        command = [recipe.python, script, tmp_path / language, language, letters, 90]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
        if "CannotFetchError" in done.stderr:
            pytest.skip(done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, done.stderr[-3000:]
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "tdt", "--width", 96, "--vocab", 128]
    build += ["--corpus", tmp_path / "en" / "texts.txt", "--train", tmp_path / "en" / "train.jsonl", "--steps", 1500]
    command = [recipe.python, *build, "--out", tmp_path / "base.nemo"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=1800)
    folders = {"": "ru", "general_": "en"}
    manifests = {
        f"{of}{part}_manifest": str(tmp_path / folder / f"{part}.jsonl")
        for of, folder in folders.items() for part in ("train", "validation")
    }  # fmt: skip
    manifests["general_manifest"] = manifests.pop("general_train_manifest")
    spec = recipe.spec(
        tmp_path, base=str(tmp_path / "base.nemo"), **manifests, tokenizer_pieces=128, max_steps=1000, batch_size=8,
        learning_rate=2e-3, validation_interval_steps=100, replay_fraction=0.6,
    )  # fmt: skip
    command = [str(recipe.python), "-m", "recipes.extend_vocabulary", str(spec), str(tmp_path / "out")]
    done = subprocess.run(
        command, env=recipe.environment(), capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == RecipeExit.DONE, done.stderr[-3000:]
    found = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert found["proof_clips"] == 30 and found["proof_identical"]["transducer"] >= 29
    assert found["validation_wer"] <= found["validation_wer_before"] / 2
    assert found["general_wer"] <= found["general_wer_before"] + 0.05
