"""One side of a row: a simulated cloud of its own with the row's faults, its bill, and a way into its machines.

Both sides of a row get the same cloud: same seed, figures, image and faults. All that a side starts has its folder as
home, working directory or argument, and is found and ended by that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "launcher" / "run"))

from rented import lower, raise_with_image  # noqa: E402

from launcher.clock import parse_iso  # noqa: E402
from tests.cloud import image  # noqa: E402
from tests.cloud.conftest import Standing  # noqa: E402

BOOT_S = 5.0
LONG_S = 1800.0  # no step of a row takes as long, on however busy a machine


@dataclass
class Seen:
    """What one side of a row came to, besides its bill.

    `needed_until`: the moment (seconds since 1970) from which nobody needs a machine any more, by the row's own
    definition; None: no machine of this row can ever be of use, so that all of its seconds are needless.
    """

    did: str
    exit: int | None = None  # None: it had not come back
    said: str = ""
    needed_until: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Side:
    """A cloud that stands, and what was rented there."""

    def __init__(self, folder: Path, *words: str, bare: bool = False) -> None:
        """`bare`: its machines find nothing of what SkyPilot installs on a node, and no network to fetch it from."""
        folder.mkdir(parents=True)
        self.folder = folder
        layers = () if bare else ("--layer", str(image.ensure()))
        given = ("--seed", "17", "--set", f"quick.boot_s={BOOT_S}", *layers, *words)
        self.cloud: Standing = raise_with_image(folder / "state", folder, *given)

    def close(self) -> None:
        """End the cloud and every process of this side."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        lower(self.cloud)

    @property
    def env(self) -> dict[str, str]:
        """Where this cloud is, and its accounts' keys."""
        return {name: value for name, value in self.cloud.env.items() if name != "PATH"}

    def processes(self) -> list[psutil.Process]:
        """Every process of this side, but for its cloud's own."""
        folder, found = str(self.folder), []
        for process in psutil.process_iter(["pid", "cmdline", "cwd", "environ", "status"]):
            held = process.info
            words = " ".join([*(held["cmdline"] or []), held["cwd"] or "", (held["environ"] or {}).get("HOME", "")])
            theirs = "LAUNCHER_SIMULATED_CLOUD" in (held["environ"] or {}) or "tests.cloud" in words
            alive = held["status"] != psutil.STATUS_ZOMBIE and held["pid"] != os.getpid()
            if alive and folder in words and not theirs and not _is_inside(process):
                found.append(process)
        return found

    # -- its bill ---------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Every machine that was ever rented here, oldest first, as the cloud bills it."""
        rows: list[dict[str, Any]] = self.cloud.bill()["machines"]
        return rows

    def alive(self) -> list[str]:
        """The machines that bill now."""
        return [str(row["id"]) for row in self.rows() if row["bills"]]

    def first(self, asker: Any) -> str:
        """The first machine, as soon as it bills; raises RuntimeError when who asks for it has ended without one."""
        until(lambda: self.rows() or asker.poll() is not None)
        rows = self.rows()
        if not rows:
            raise RuntimeError("no machine was ever rented")
        return str(rows[0]["id"])

    def watch(self, seconds: float) -> float:
        """Look on until nothing bills, and no longer than that; for how long."""
        began = time.monotonic()
        until(lambda: not self.alive(), seconds, must=False)
        return time.monotonic() - began

    def needless(self, needed_until: float | None) -> tuple[float, Decimal]:
        """(seconds, dollars) billed after the machines were of no more use, up to now."""
        long, usd, now = 0.0, Decimal(0), time.time()
        for row in self.rows():
            created = parse_iso(row["created"]).timestamp()
            ended = parse_iso(row["ended"]).timestamp() if row["ended"] else now
            since = created if needed_until is None else max(created, needed_until)
            seconds = max(0.0, ended - since)
            long += seconds
            usd += Decimal(str(row["usd_per_hour"])) * Decimal(f"{seconds:.3f}") / 3600
        return long, usd

    # -- its machines -----------------------------------------------------------------------------------------------

    def inside(self, machine: str, script: str, stdin: str = "") -> str:
        """What a root shell says on a machine: entered by its namespaces, which nobody there or here can notice."""
        first = _first_process(self.folder / "state", machine)
        if first is None:
            return ""
        argv = ["nsenter", "-t", str(first), "-m", "-p", "-n", "-u", "-i", "--root", "--wd=/", "env", "-i",
                "HOME=/root", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "bash", "-c", script]  # fmt: skip
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, errors="replace")
        return done.stdout

    def kill_agent(self, machine: str) -> int:
        """SIGKILL to SkyPilot's agent on a machine; how many processes of it there were."""
        script = "pids=$(pgrep -f '[s]ky.skylet.skylet'); [ -n \"$pids\" ] && kill -9 $pids; echo $pids"
        killed = len(self.inside(machine, script).split())
        assert killed, "SkyPilot's agent was not there to be killed"
        return killed


def _first_process(state: Path, machine: str) -> int | None:
    """Process 1 of a machine of the cloud with this state, as this system numbers it.

    Clouds of one seed give their machines the same names; their folders tell them apart.
    """
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[:1] == ["unshare"] and machine in words and any(word.startswith(f"{state}/") for word in words):
            with suppress(psutil.Error, IndexError):
                return int(process.children()[0].pid)
    return None


def _is_inside(process: psutil.Process) -> bool:
    """Whether it runs on a simulated machine: in another process namespace than ours."""
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    return True


def until(what: Any, seconds: float = LONG_S, pause_s: float = 0.5, *, must: bool = True) -> Any:
    """What `what` says, once it says something; raises TimeoutError, or (`must` not) returns what it said last."""
    ends = time.monotonic() + seconds
    while not (said := what()):
        if time.monotonic() > ends:
            if must:
                raise TimeoutError(f"not within {seconds:.0f} s")
            return said
        time.sleep(pause_s)
    return said


def utc() -> str:
    """Now, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
