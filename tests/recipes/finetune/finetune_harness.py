"""A spoken corpus made of tones (a pair a word) and the recipe run on it for real, for the tests beside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from recipes.contract import read_events, sha256_of
from recipes.finetune.checkpoints import SIDECAR, STATE, Checkpoints
from tests.patience import be_late

WORDS = [
    "turn",
    "on",
    "the",
    "kitchen",
    "lights",
    "play",
    "some",
    "quiet",
    "music",
    "what",
    "is",
    "weather",
    "today",
    "open",
    "door",
]
RATE = 16000


def speak(words: Sequence[str], chance: np.random.Generator) -> np.ndarray[Any, Any]:
    """Each word as two tones of its own for 0.2 s, then a pause."""
    at = np.arange(RATE // 5) / RATE
    parts = [np.zeros(800)]
    for word in words:
        number = WORDS.index(word)
        tones = np.sin(2 * np.pi * (300 + 140 * number) * at) + 0.6 * np.sin(2 * np.pi * (5200 - 150 * number) * at)
        parts += [0.3 * np.hanning(len(at)) * tones, np.zeros(800)]
    samples = np.concatenate(parts)
    return samples + chance.normal(scale=0.003, size=len(samples))


def corpus(manifest: Path, rows: int, seed: int, words: Sequence[str] = WORDS) -> Path:
    """Write a manifest of `rows` utterances of two to four words; audio beside it, named relatively."""
    chance = np.random.default_rng(seed)
    folder = manifest.parent / f"{manifest.stem}_audio"
    folder.mkdir(parents=True)
    lines = []
    for number in range(rows):
        text = list(chance.choice(words, size=int(chance.integers(2, 5))))
        samples = speak(text, chance)
        soundfile.write(folder / f"{number:03d}.wav", samples, RATE)
        row = {
            "audio_filepath": f"{folder.name}/{number:03d}.wav",
            "text": " ".join(text),
            "duration": round(len(samples) / RATE, 4),
        }
        lines.append(json.dumps(row))
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


@dataclass(frozen=True)
class Recipe:
    """The fine-tune recipe in its own environment, on the tone corpus."""

    python: Path
    repo: Path
    data: Path
    bases: Path | None = None

    def spec(self, folder: Path, **settings: Any) -> Path:
        """SPEC.json for a short run of the CTC base; `settings` on top."""
        made: dict[str, Any] = {
            "train_manifest": str(self.data / "train.jsonl"),
            "validation_manifest": str(self.data / "validation.jsonl"),
            "base": str((self.bases or self.data) / "ctc.nemo"),
            "max_steps": 20,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "validation_interval_steps": 10,
            "early_stopping_patience": 0,
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "spec.json"
        path.write_text(json.dumps(made | settings), encoding="utf-8")
        return path

    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.repo), "HF_HUB_OFFLINE": "1"}

    def start(self, *args: object, script: str | None = None) -> subprocess.Popen[str]:
        """Start the recipe (or a script that calls it) and return the process."""
        what = ["-m", "recipes.finetune"] if script is None else ["-c", script]
        command = [str(self.python), *what, *map(str, args)]
        return subprocess.Popen(
            command, env=self.environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *args: object, script: str | None = None) -> tuple[int, str]:
        """Run it to its end; exit code and stderr."""
        process = self.start(*args, script=script)
        _, errors = process.communicate(timeout=600)
        return process.returncode, errors


def events(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The events of a run, of one kind where given."""
    found = [event for _, event in read_events(out / "events.jsonl")]
    return [event for event in found if kind in (None, event["kind"])]


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Block until something happened; fails when the process ends first."""
    while not happened():
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        assert happened(), process.stderr.read() if process.stderr else ""
        break
    be_late()


def steps_done(out: Path) -> int:
    """The last step that the events tell of."""
    return max((int(event["step"]) for event in events(out, "progress")), default=0)


def whole_checkpoints(out: Path) -> list[str]:
    """The checkpoints that OUT holds, each looked at: `step-00000010`; a part of one counts as one that is torn."""
    held = Checkpoints(out / "checkpoints", 99)  # clears what a kill left
    kept = [path for path in sorted(held.folder.iterdir()) if path.is_dir()]
    torn = [line for kind in ("step", "best") for line in held.newest(kind)[1]]
    assert torn == [] and all(sha256_of(path / STATE) == sha_told(path) for path in kept), (torn, kept)
    return [path.name for path in kept]


def sha_told(checkpoint: Path) -> str:
    """What a checkpoint's own note says of its file."""
    return str(json.loads((checkpoint / SIDECAR).read_text(encoding="utf-8"))["sha256"])


def ended(out: Path) -> tuple[str, str]:
    """Status and reason of a run that failed and left no success behind."""
    assert not (out / "COMPLETE.json").exists() and not list(out.glob("*.nemo"))
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["artifacts"] == []
    return result["status"], result["metrics"]["reason"]
