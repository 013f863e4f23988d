"""A ground for runs that take two seconds: real recordings, the stand-in recipe, and a process that dies to order."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jobs import REPO, Launcher

from launcher.home import Home
from launcher.ledger import LeaseState, Ledger

EMPTY = b"\x80\x02}q\x00."  # the pickle of a state dict with nothing in it
HERE = Path(__file__).resolve().parent
PHRASES = ("turn on the kitchen lights", "play some quiet music", "it is a cold winter", "call me a taxi now")


@dataclass(frozen=True)
class FastGround:
    """A job file, the base that says how the recipe behaves, and what the recipe says of itself."""

    folder: Path
    python: Path

    @property
    def trace(self) -> Path:
        return self.folder / "trace.jsonl"

    def job(self, steps: int = 5, text: str = "", name: str = "job.yaml", **nature: Any) -> Path:
        """Write the base and a job for it; `text` is added to the job file."""
        base = self.folder / f"{name}.nemo"
        write_base(base, {"trace": str(self.trace), **nature})
        job = self.folder / name
        job.write_text(
            f"recipe: finetune\nspec: {{base: ./{json.dumps(base.name)[1:-1]}, max_steps: {steps}}}\n"
            f"data: {{manifest: m.jsonl}}\n{text}"
        )
        return job

    def starts(self, step: str) -> int:
        """How often the recipe was started for a step; fails when two of them ever shared an OUT."""
        lines = [json.loads(line) for line in self.trace.read_text().splitlines()] if self.trace.exists() else []
        assert not [line for line in lines if line["word"] == "double"], "two recipes in one OUT"
        return sum(line["step"] == step for line in lines)


def write_base(path: Path, nature: dict[str, Any]) -> None:
    """An archive that looks like a small .nemo to whoever asks how large it is: 0.1 M weights, none of them real."""
    config = "encoder: {d_model: 64, n_layers: 2, n_heads: 4}\ndecoder: {vocab_size: 64}\njoint: {num_classes: 64}\n"
    weights = io.BytesIO()
    with zipfile.ZipFile(weights, "w") as file:
        file.writestr("archive/data.pkl", EMPTY)
        file.writestr("archive/data/0", bytes(400_000))
    with tarfile.open(path, "w") as archive:
        for name, held in (
            ("model_config.yaml", config.encode()), ("nature.json", json.dumps(nature).encode()),
            ("model_weights.ckpt", weights.getvalue()),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(held)
            archive.addfile(member, io.BytesIO(held))


def make_ground(folder: Path, rows: int = 10) -> FastGround:
    """`rows` short recordings, a manifest of them, and the stand-in's wrapper."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for n in range(rows):
        soundfile.write(folder / f"{n}.wav", rng.normal(0, 0.1, 3200), 16000)
        lines.append(json.dumps({"audio_filepath": f"{n}.wav", "duration": 0.2, "text": PHRASES[n % 4]}) + "\n")
    (folder / "m.jsonl").write_text("".join(lines))
    python = folder / "recipe-python"
    inner = " ".join(map(shlex.quote, (sys.executable, str(HERE / "fast_recipe.py"))))
    python.write_text(f'#!/bin/sh\nexec {inner} "$@"\n')
    python.chmod(0o755)
    return FastGround(folder, python)


def over_and_clean(launcher: Launcher, run: str) -> dict[str, Any]:
    """The run's outcome, when it is over, told, released, and nothing of it is left on the machine."""
    ledger = Ledger.open(Home(launcher.home))
    held = ledger.run(run)
    assert held.over, held.state
    assert held.outcome is not None, "over, but nobody wrote what came of it"
    assert {lease.state for lease in ledger.leases(run)} <= {LeaseState.RELEASED}
    assert held.outcome["released"] is True
    boxes = launcher.home / "boxes"
    assert not boxes.exists() or not list(boxes.iterdir()), "a box folder was left"
    receipt = json.loads(Path(held.outcome["receipt"]).read_text())
    assert (receipt["run"], receipt["state"], receipt["exit"]) == (run, str(held.state), held.outcome["exit"])
    return held.outcome


def runner_that_dies(launcher: Launcher, run: str, after: int) -> bool:
    """Run the runner here until its `after`-th effect, then SIGKILL it; True when it came to its end before."""
    command = [sys.executable, HERE / "dying_runner.py", launcher.home, run, after]
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode != -9
