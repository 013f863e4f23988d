"""A batch of real runner processes on the scripted provider, whose bill is the oracle; and a clock that can jump."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from fast import make_ground
from jobs import REPO, Launcher

SCRIPTED = REPO / "tests" / "launcher" / "scripted"
FAKETIME = [Path(each) for each in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
                                    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")]  # fmt: skip
DYING = Path(__file__).resolve().with_name("dying_launcher.py")
OFFER = {"provider": "scripted", "offer_id": "m1", "gpu": "RTX 4090", "count": 1, "vram_gb": 24,
         "usd_per_hour": "2.40", "trust": "secure", "region": "DE"}  # fmt: skip


class Sweep:
    """A folder with a batch file, its jobs, budget and prices; `launcher` and the provider's bill."""

    def __init__(self, folder: Path, day: str = "6.00", at_once: int = 4, providers: str = "[scripted]") -> None:
        self.folder, self.home, self._starts = folder, folder / "home", 0
        self.ground = self.fast = make_ground(folder / "ground")
        self.launcher = Launcher(self.home)  # what a terminal takes of a ground
        self.job = self.ground.job(5, f"resources: {{providers: {providers}}}\n", "base.yaml")
        self.budget(day=day, at_once=at_once, providers=providers)
        self.script(fractions=[0.5, 0.8, 0.3])
        self.env = {
            **os.environ, "LAUNCHER_RECIPE_PYTHON": str(self.ground.python), "LAUNCHER_SCRIPT": str(self._script),
            "PYTHONPATH": f"{REPO}{os.pathsep}{SCRIPTED}",
        }  # fmt: skip
        self.env.pop("CI", None)  # there, a ledger on this disk would have to be owned up to
        self.prices("1.00")
        if "local" not in providers:
            self.rate = self._rate_for(Decimal("1.42"))
            self.prices(self.rate)

    def _rate_for(self, ceiling: Decimal) -> Decimal:
        """The dollars an hour at which one of the jobs may cost about this much, whatever the estimate says."""
        command = ("plan", self.ground.job(6, "resources: {providers: [scripted]}\n", "probe.yaml"), "--offers",
                   self.folder / "offers.json", "--json")  # fmt: skip
        _, plan, _ = self.ended(self.start(*command, LAUNCHER_HOME=str(self.folder / "elsewhere")))
        return (ceiling / Decimal(plan["ceiling_usd"])).quantize(Decimal("0.01"))

    def budget(self, day: str = "6.00", month: str = "50.00", at_once: int = 4, providers: str = "[scripted]",
               approval: str = "[typed, preapproved]") -> None:  # fmt: skip
        (self.ground.folder / "budgets.yaml").write_text(
            "default: lab\ntime_zone: Europe/Zurich\nbudgets:\n  lab:\n    per_run_usd: 5.00\n"
            f"    per_day_usd: {day}\n    per_month_usd: {month}\n    max_usd_per_hour: 2.50\n"
            f"    concurrent_runs: {at_once}\n    providers: {providers}\n    approval: {approval}\n"
        )

    def prices(self, usd_per_hour: object, **more: object) -> None:
        """What the provider asks for an hour from now on."""
        path = self.folder / "offers.json"
        path.with_suffix(".new").write_text(json.dumps([{**OFFER, "usd_per_hour": str(usd_per_hour), **more}]))
        path.with_suffix(".new").rename(path)

    @property
    def _script(self) -> Path:
        return self.folder / "script.json"

    def script(self, **told: Any) -> None:
        self._script.write_text(json.dumps(told))

    def file(self, text: str = "", jobs: str = "") -> Path:
        """Write the batch file: twelve jobs unless told otherwise."""
        over = "{spec.max_steps: [3, 4, 5], spec.learning_rate: [1e-4, 2e-4, 3e-4, 4e-4]}"
        path = self.ground.folder / "sweep.yaml"
        if "pack:" not in text:
            text += "pack: false\n"  # most tests are about runs that go on at once
        path.write_text(text + (jobs or f"matrix:\n  job: base.yaml\n  over: {over}\n"))
        return path

    def start(self, *args: object, dies: int = 0, **env: str) -> subprocess.Popen[str]:
        """`launcher ARGS` without a terminal; with `dies`, killed just before its so many-th effect on the world."""
        how = [DYING, dies] if dies else ["-m", "launcher"]
        command = [sys.executable, *how, "--home", self.home, *args]
        self._starts += 1
        with self._said.open("w") as said:
            return subprocess.Popen(
                [str(part) for part in command], stdout=subprocess.PIPE, stderr=said, text=True,
                stdin=subprocess.DEVNULL, cwd=self.folder, env={**self.env, **env},
            )  # fmt: skip

    @property
    def _said(self) -> Path:
        return self.folder / f"said.{self._starts}"

    def said(self) -> str:
        """What the launcher that was started last has told so far."""
        return self._said.read_text()

    def batch(self, *args: object, dies: int = 0, **env: str) -> subprocess.Popen[str]:
        """`launcher batch` at the prices of the file."""
        path = self.ground.folder / "sweep.yaml"
        return self.start("batch", path, "--offers", self.folder / "offers.json", "--json", *args, dies=dies, **env)

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
        """(exit code, its JSON object, stderr) of a launcher."""
        said = Path(f"/proc/{process.pid}/fd/2").resolve() if process.poll() is None else self._said
        out, _ = process.communicate(timeout=300)
        err = said.read_text()
        assert "Traceback" not in err, err
        assert len(out.splitlines()) == 1, f"{out}\n{err}"
        return process.returncode, json.loads(out), err

    def __call__(self, *args: object, **env: str) -> tuple[int, dict[str, Any], str]:
        return self.ended(self.batch(*args, **env))

    # -- the oracles --------------------------------------------------------------------------------------

    def bill(self) -> list[dict[str, Any]]:
        """The provider's own books."""
        path = self._script.with_name(self._script.name + ".bill.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def billed(self) -> Decimal:
        """What every machine created so far costs, those still there included."""
        return sum((Decimal(line["will_cost"]) for line in self.bill() if line["event"] == "create"), Decimal(0))

    def created(self) -> list[dict[str, Any]]:
        return [line for line in self.bill() if line["event"] == "create"]

    def ledger(self, query: str) -> list[tuple[Any, ...]]:
        """One consistent look into the ledger's file."""
        path = self.home / "ledger.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            try:
                return db.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def committed(self) -> Decimal:
        """Charges, and what open reservations still hold beyond them: all of it, at one moment."""
        rows = self.ledger(
            "select amount_usd, settled_at, (select group_concat(c.amount_usd) from charges c where c.run = r.run) "
            "from reservations r"
        )
        total = Decimal(0)
        for amount, settled, charges in rows:
            charged = sum(map(Decimal, (charges or "0").split(",")), Decimal(0))
            total += charged if settled else max(charged, Decimal(amount))
        return total

    def runs(self) -> list[tuple[str, str, int]]:
        """(run, state, item) of all runs, oldest first."""
        return self.ledger("select run, state, item from runs order by created_at")  # type: ignore[return-value]


class FakeClock:
    """The time of day of every process started with `env`, moved by writing to a file. Seconds stay real."""

    def __init__(self, folder: Path, starts: datetime) -> None:
        self._file = folder / "faketime"
        self.jump(starts)

    def jump(self, to: datetime) -> None:
        """Make it `to` now."""
        self._shift = to.timestamp() - time.time()
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._shift:+.3f}\n")
        new.rename(self._file)

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self._shift, UTC)

    @property
    def env(self) -> dict[str, str]:
        library = next(path for path in FAKETIME if path.exists())
        return {
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
        }  # fmt: skip


def sleeps(pid: int) -> int:
    """How often a process has gone to sleep so far: a scheduler that waits does some times at every turn."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("voluntary_ctxt")))


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A launcher that no failing test leaves behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> bool:
    """Whether a launcher is gone."""
    return process.poll() is not None


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, as a power cut to the launcher alone."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
