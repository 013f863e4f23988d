"""The launcher on the same cloud, its machines rented through SkyPilot, with its layers as shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.leaks.side import LONG_S, ROOT, Side

sys.path.insert(0, str(ROOT / "tests" / "launcher" / "sentinel"))
from attended import Attended
from fast import make_ground
from jobs import Launcher
from rented import RentedGround

from launcher.clock import SystemClock, parse_iso
from launcher.home import Home
from launcher.providers.skypilot.lodging import Lodging
from tests.cloud import catalog

YES = ("--confirm", "YES", "--max-cost", "3")


class Ours:
    """One user's launcher on one side's cloud. The recipe is the tests' stand-in, which works a few seconds."""

    def __init__(self, side: Side) -> None:
        self.side, self.root = side, side.folder / "ours" / "home"
        self.fast = make_ground(side.folder / "ours" / "ground")
        self.root.mkdir(parents=True)
        catalog.place(self.root)
        self.ground = RentedGround(self.fast, Launcher(self.root), side.cloud)
        self.attended = Attended(self.root)

    def close(self) -> None:
        """End what is left of it here, and remove what its SkyPilot wrote beside its homes."""
        self.attended.end()
        for folder in self._lodgings():
            Lodging(Home(self.root), "runpod", folder.name, SystemClock()).remove()

    def job(self, resources: str = "providers: [runpod], via: skypilot, gpus: [L40S]", **nature: Any) -> Path:
        """A job file; `nature`: how the stand-in behaves (`step_s`, `evaluate_s`)."""
        steps = int(nature.pop("steps", 3))
        job: Path = self.fast.job(steps, f"resources: {{{resources}}}\n", trace="/tmp/trace.jsonl", **nature)
        return job

    def start(self, job: Path, *words: str, **env: str) -> subprocess.Popen[str]:
        """Begin `launcher run JOB`, confirmed, without a terminal."""
        process: subprocess.Popen[str] = self.ground.start("run", job, *YES, *words, **env)
        return process

    def run(self, job: Path, **env: str) -> tuple[int, dict[str, Any], str]:
        """`launcher run JOB` to its end: exit code, its object, what it said to the person."""
        return end_of(self.start(job, **env))

    def kill_server(self) -> int:
        """SIGKILL to the SkyPilot that the launcher has started for the lease; how many processes there were."""
        killed = 0
        for folder in self._lodgings():
            held = Lodging(Home(self.root), "runpod", folder.name, SystemClock())
            killed += len(held.processes())
            held.end()
        assert killed, "there was no API server to be killed"
        return killed

    def _lodgings(self) -> list[Path]:
        return [path for path in (self.root / "skypilot").glob("pl-*") if path.is_dir()]

    def begin_short(self, job: Path, seconds: float) -> tuple[str, subprocess.Popen[bytes]]:
        """Approve and begin a run whose deadline is so many seconds after renting: which, and its runner.

        By the tests' own template: hours made short, so that what happens at a deadline can be watched.
        """
        env = {**os.environ, **self.ground.env, "PYTHONPATH": str(ROOT), "LAUNCHER_HOME": str(self.root)}
        words = [sys.executable, "-m", "tests.faults.template", str(self.root), str(job), "0", str(seconds)]
        done = subprocess.run(words, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        run = done.stdout.split()[0]
        with (self.side.folder / "runner.log").open("ab") as log:
            runner = subprocess.Popen(
                [sys.executable, "-m", "launcher.runner", str(self.root), run], cwd=self.root, env=env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return run, runner

    def kill_all(self, run: str) -> None:
        """SIGKILL to the runner, the sentinel, whatever they started, and the lease's SkyPilot."""
        for pid in (self.attended.sentinel(run), self.attended.runner(run)):
            self.attended.kill(pid)
        self.attended.end()
        for folder in self._lodgings():
            Lodging(Home(self.root), "runpod", folder.name, SystemClock()).end()
        assert self.attended.processes() == []

    def deadline(self, run: str) -> float:
        """When the run's machine must be gone, in seconds since 1970."""
        return parse_iso(self.ground.ledger.leases(run)[-1].deadline).timestamp()

    def plan(self) -> dict[str, Any]:
        """What was approved."""
        held: dict[str, Any] = json.loads(next(self.root.glob("runs/*/plan.json")).read_text(encoding="utf-8"))
        return held

    def events(self) -> list[dict[str, Any]]:
        """What the run has said."""
        file = next(self.root.glob("runs/*/events.jsonl"), None)
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file else []


def end_of(process: subprocess.Popen[str], timeout_s: float = LONG_S) -> tuple[int, dict[str, Any], str]:
    """Wait for a verb's end: (exit code, its object, stderr)."""
    out, err = process.communicate(timeout=timeout_s)
    lines = out.splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else {}, err
