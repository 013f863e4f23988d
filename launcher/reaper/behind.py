"""A sweep in the background, at the start of every verb that rents: nobody waits for it, provider down or not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from launcher.home import Home
from launcher.layers import is_off
from launcher.ledger import LeaseState, Ledger
from launcher.runner.control import is_running

EVERY_S = 900.0  # at most so often where nothing is known to be left: labels alone may know of something


def reap_behind(home: Home, ledger: Ledger) -> subprocess.Popen[bytes] | None:
    """Start `launcher reap` by itself where there may be something to release; None where there is nothing to do.

    That is: a lease that is not released and that no runner here takes care of; or, where this home has rented
    before, a quarter of an hour without a sweep. What it says goes to reap.log in the home; it ends in minutes.
    """
    mark = home.root / "reap.log"
    if is_off("reaper"):
        return None
    if not _left_alone(home, ledger) and (not (home.root / "rented").is_dir() or _age_s(mark) < EVERY_S):
        return None
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)
    with suppress(OSError), mark.open("wb") as log:  # a sweep that cannot be started keeps nobody from renting
        mark.chmod(0o600)
        return subprocess.Popen(
            [sys.executable, "-m", "launcher", "--home", str(home.root), "reap", "--quiet"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    return None


def _left_alone(home: Home, ledger: Ledger) -> bool:
    leases = [lease for lease in ledger.leases() if lease.state is not LeaseState.RELEASED]
    return any(lease.provider != "local" and not is_running(home.run_dir(lease.run)) for lease in leases)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")
