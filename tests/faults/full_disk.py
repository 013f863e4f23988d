"""Plays one full disk: the launcher's home is on a small one, which is full from one of the ledger's writes on."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from launcher.failpoints import fill
from launcher.ledger import LeaseState, Ledger
from launcher.providers.runpod_api import carries
from launcher.sentinel.marks import is_guarded
from tests.faults.cases import passed
from tests.faults.field import Copy, Field, until
from tests.faults.play import STEP_S

SIZE = "48m"
WRITE = "ledger.write.before"
YES = ("--confirm", "YES", "--max-cost", "3")
ENDED_WITHIN_S = 240.0  # while the disk is full: a machine that answers slowly, and the sentinel's own pauses


@dataclass
class Filled:
    """What came of one; `faults` is empty where everything was kept."""

    who: str  # whose write: the verb's (launcher) or the runner's
    number: int
    reached: bool = False
    rented: bool = False
    told: str = ""  # what the verb said to the person before it
    code: int | None = None
    state: str = ""
    faults: list[str] = field(default_factory=list)

    def told_briefly(self) -> str:
        how = "rented" if self.rented else "nothing rented"
        return f"{self.who} {self.number}: {how}, exit {self.code} {self.state} {'; '.join(self.faults)}"


def writes(ground: Field, provider: str) -> Counter[str]:
    """How many writes of one whole rented run are whose, by its log of failpoints."""
    copy, log = ground.copy(provider), ground.folder / "writes.log"
    shutil.rmtree(copy.root)
    code, outcome, said = _run(copy, provider, LAUNCHER_FAILPOINT_LOG=str(log)).wait()
    ground.leave(copy)
    assert (code, outcome.get("state")) == (0, "settled"), said
    return Counter({who: passed(log, who)[WRITE] for who in ("launcher", "runner")})


def play(ground: Field, provider: str, who: str, number: int) -> Filled:
    """One whole run whose disk is full from that write on, until nothing of it bills; then there is room again."""
    result, copy = Filled(who, number), ground.copy(provider)
    with _small_disk(copy, kept=who == "runner"):
        filler, fired = copy.root / "filler", copy.root.parent / "fired"
        fired.mkdir()
        env = {
            "LAUNCHER_FAILPOINT": f"{who}@{WRITE}:{number}", "LAUNCHER_FAILPOINT_FIRED": str(fired),
            "LAUNCHER_FAILPOINT_FILLS": str(filler), "LAUNCHER_SENTINEL_PAUSES_S": "0.2",
        }  # fmt: skip
        verb = _Verb(copy, ("resume", copy.run), env) if who == "runner" else _run(copy, provider, **env)
        try:
            result.reached = bool(until(lambda: any(fired.iterdir()) or verb.is_over(), 300)) and any(fired.iterdir())
            with _kept_full(filler):
                if until(lambda: verb.is_over() or _is_ended(copy, verb.run), ENDED_WITHIN_S) is None:
                    result.faults.append(f"LEAK while the disk is full: {_alive(copy)}")
                time.sleep(1)
            filler.unlink(missing_ok=True)
            result.code, outcome, result.told = verb.wait()
            run = str(outcome.get("run") or verb.run)
            result.state = str(outcome.get("state") or "")
            _judge(replace(copy, run=run), result)
        finally:
            for machine in _alive(copy):
                ground.cloud.fault("host_death", machine=machine)
    ground.leave(copy)
    return result


class _Verb:
    """A verb that a person has started and watches."""

    def __init__(self, copy: Copy, words: tuple[str, ...], env: dict[str, str]) -> None:
        self._copy = copy
        self._program = copy.program("launcher", "--home", str(copy.root), *words, "--json", **env)

    @property
    def run(self) -> str:
        return next((path.name for path in self._copy.root.glob("runs/*")), self._copy.run)

    def is_over(self) -> bool:
        return self._program.poll() is not None

    def wait(self) -> tuple[int, dict[str, Any], str]:
        out, err = self._program.communicate(timeout=400)
        lines = out.splitlines()
        return self._program.returncode or 0, json.loads(lines[-1]) if lines else {}, err


def _run(copy: Copy, provider: str, **env: str) -> _Verb:
    return _Verb(copy, ("run", str(copy.field.job(provider, "finetune")), *YES), env)


def _rows(copy: Copy) -> list[dict[str, Any]]:
    """The bill of all that this home's ledger has meant to rent; it is only read, whatever its disk is like."""
    labels: list[str] = []
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{copy.root}/ledger.sqlite?mode=ro", uri=True)) as db:
        labels = [str(label) for (label,) in db.execute("SELECT label FROM leases")]
    return [row for row in copy.field.cloud.bill()["machines"] if any(carries(row["label"], each) for each in labels)]


def _alive(copy: Copy) -> list[str]:
    return [str(row["id"]) for row in _rows(copy) if row["state"] != "terminated"]


def _is_ended(copy: Copy, run: str) -> bool:
    """Nothing bills, and nobody is left who would rent: the runner's end is its sentinel's, which now only writes."""
    from launcher.runner.control import is_running

    run_dir = copy.home.run_dir(run)
    return not is_running(run_dir) and not _alive(copy)


def _judge(copy: Copy, result: Filled) -> None:
    """By the cloud's bill; and whether our books say the same."""
    rows = _rows(copy)
    result.rented = bool(rows)
    if alive := _alive(copy):
        result.faults.append(f"LEAK: {alive}")
    if "Traceback" in result.told:
        result.faults.append(f"a traceback: {result.told[-300:]}")
    if result.code and result.reached and "full" not in result.told and "No space" not in result.told:
        result.faults.append(f"ended with {result.code} and did not say that the disk is full: {result.told[-300:]}")
    run_dir = copy.home.run_dir(copy.run)
    if until(lambda: not is_guarded(run_dir), 60) is None:
        result.faults.append("its sentinel did not come to an end")
    ledger = Ledger.open(copy.home)
    leases = ledger.leases(copy.run) if rows else []
    if any(lease.state is not LeaseState.RELEASED for lease in leases):
        result.faults.append(f"the ledger does not say released: {[str(lease.state) for lease in leases]}")
    billed = sum((Decimal(str(row["usd"])) for row in rows), Decimal(0))
    step = sum((Decimal(str(row["usd_per_hour"])) * STEP_S[row["provider"]] / 3600 for row in rows), Decimal(0))
    if billed > copy.ceiling:
        result.faults.append(f"OVERCHARGE: ${billed} of ${copy.ceiling}")
    spent = ledger.spent(copy.run)  # above the bill it may be: until somebody saw it gone who could write that down
    if rows and not billed - step <= spent <= copy.ceiling:
        result.faults.append(f"the ledger says ${spent} of ${copy.ceiling}, the bill ${billed}")


@contextmanager
def _small_disk(copy: Copy, *, kept: bool) -> Iterator[None]:
    """The copy's home on a disk of its own; `kept`: with what was in it."""
    aside = copy.root.with_name("aside")
    copy.root.rename(aside)
    copy.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(copy.root)], check=True)
    try:
        if kept:
            shutil.copytree(aside, copy.root, symlinks=True, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(copy.root)], check=True)


@contextmanager
def _kept_full(filler: Path) -> Iterator[None]:
    """Whatever is removed there makes no room."""
    over = threading.Event()

    def keep() -> None:
        while filler.exists() and not over.wait(0.1):
            with suppress(OSError):
                fill(filler)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
