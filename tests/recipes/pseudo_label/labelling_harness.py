"""The labelling recipe run for real, and what it wrote, for the tests beside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.contract import read_events
from recipes.manifest import read_manifest

HERE = Path(__file__).parent
SPOKEN = ["turn", "on", "the", "kitchen", "lights", "play"]  # the first words of the tone corpus
NOISES = 8


@dataclass(frozen=True)
class Labelling:
    """The recipe in its own environment."""

    python: Path
    repo: Path

    def start(self, folder: Path, **settings: Any) -> subprocess.Popen[str]:
        """Start it with OUT = folder/out."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [str(self.python), "-m", "recipes.pseudo_label", str(folder / "spec.json"), str(folder / "out")]
        environment = os.environ | {"PYTHONPATH": str(self.repo), "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )

    def run(self, folder: Path, **settings: Any) -> tuple[int, str]:
        """Run it to its end; exit code and stderr."""
        process = self.start(folder, **settings)
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    def call(self, *command: object) -> str:
        """Run a script of the tests in that environment; its output."""
        done = subprocess.run(
            [str(self.python), *map(str, command)], env=os.environ | {"PYTHONPATH": str(self.repo)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


def said_in(row: dict[str, Any]) -> str:
    """What was really said in a file of the tone folder."""
    return Path(row["audio_filepath"]).name.split(".")[0].replace("-", " ")


def rows_of(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(labelled, filtered)."""
    return read_manifest(out / "labelled.jsonl"), read_manifest(out / "filtered.jsonl")


def told(out: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for _, event in read_events(out / "events.jsonl") if event["kind"] == kind]


def without_noise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if not Path(row["audio_filepath"]).name.startswith("noise")]
