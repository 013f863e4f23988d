"""A small real corpus and a tiny real base, made once for the tests that run whole jobs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fast import FastGround, make_ground
from jobs import REPO, Ground, Launcher, run_quietly


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory, recipe_python: Path) -> Ground:
    """5 speakers saying 26 terms, everyday phrases, and a base that has heard the everyday phrases a little."""
    place = tmp_path_factory.mktemp("ground")
    corpus = REPO / "examples" / "clinical-terms" / "make_corpus.py"
    run_quietly(sys.executable, corpus, "--out", place, "--voices", 5)
    build = REPO / "examples" / "tiny_base" / "build.py"
    run_quietly(
        recipe_python, build, "--out", place / "base.nemo", "--corpus", place / "corpus.txt",
        "--train", place / "base" / "manifest.jsonl", "--steps", 120,
    )  # fmt: skip
    return Ground(place / "recordings", place / "general" / "manifest.jsonl", place / "base.nemo")


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    """A launcher whose home is empty."""
    return Launcher(tmp_path / "home")


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastGround:
    """Ten short recordings and the stand-in recipe: a whole run takes two seconds."""
    ground = make_ground(tmp_path / "ground")
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(ground.python))
    return ground
