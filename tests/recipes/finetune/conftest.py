"""The tone corpus, the tiny bases that adapt to it, and the recipe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from finetune_harness import WORDS, Recipe, corpus


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train, validation, general and general_validation manifests of the tone corpus."""
    folder = tmp_path_factory.mktemp("tones")
    corpus(folder / "train.jsonl", 24, 1)
    corpus(folder / "validation.jsonl", 6, 2)
    corpus(folder / "general.jsonl", 12, 3, WORDS[::-1][:8])
    corpus(folder / "general_validation.jsonl", 4, 4, WORDS[::-1][:8])
    return folder


@pytest.fixture(scope="session")
def recipe(recipe_python: Path, repo: Path, tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The recipe with the four tiny bases built (from the cache where they were built before)."""
    bases = tmp_path_factory.mktemp("bases")
    texts = bases / "corpus.txt"
    texts.write_text("\n".join(" ".join(WORDS[i : i + 4]) for i in range(12)) + "\n", encoding="utf-8")
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "all", "--corpus", texts, "--out", bases]
    subprocess.run([str(recipe_python), *map(str, build)], check=True, capture_output=True, timeout=300)
    return Recipe(recipe_python, repo, tones, bases)
