"""Folders of tones that a teacher can hear, with noise among them, and the recipe run for real."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from labelling_harness import HERE, NOISES, SPOKEN, Labelling

sys.path.insert(0, str(HERE.parent / "finetune"))

from finetune_harness import RATE, speak


@pytest.fixture(scope="session")
def labelling(recipe_python: Path, repo: Path) -> Labelling:
    return Labelling(recipe_python, repo)


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 utterances called after their words (turn-on-the.07.wav), eight of noise, a broken file, no text at all."""
    folder = tmp_path_factory.mktemp("unlabelled")
    chance = np.random.default_rng(7)
    for number in range(40):
        words = list(chance.choice(SPOKEN, size=int(chance.integers(2, 5))))
        soundfile.write(folder / f"{'-'.join(words)}.{number:02d}.wav", speak(words, chance), RATE)
    for number in range(NOISES):
        soundfile.write(folder / f"noise.{number}.wav", chance.normal(0, 0.1, RATE).astype(np.float32), RATE)
    (folder / "torn.flac").write_text("no audio")
    return folder
