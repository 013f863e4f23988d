"""What the whole-job tests stand on: where the ground is, and the command line with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Ground:
    """Where the recordings, the general set and the base are."""

    recordings: Path
    general: Path
    base: Path


@dataclass(frozen=True)
class Launcher:
    """The command line with a home of its own."""

    home: Path

    def start(self, *args: object, **env: str) -> subprocess.Popen[str]:
        """Start a verb without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "launcher", "--home", str(self.home), *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=self.home.parent,
            env={**os.environ, "PYTHONPATH": str(REPO), **env},
        )  # fmt: skip

    def __call__(self, *args: object) -> tuple[int, dict[str, Any], str]:
        """Run a verb with --json: (exit code, its object, stderr)."""
        process = self.start(*args, "--json")
        out, err = process.communicate(timeout=900)
        assert len(out.splitlines()) == 1, f"stdout must be one object:\n{out}\n{err}"
        return process.returncode, json.loads(out), err


def run_quietly(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
