"""What all rows share: how long a job works, how long is looked on, and the words for what was seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.leaks.ours import Ours
from bench.leaks.plain import Plain
from bench.leaks.side import LONG_S, Seen, Side, until

WORK_S = 10
DOWN = ("--down", "-i", "1")  # idle minutes are whole; the least is 1
WORK = f"sleep {WORK_S}; date +%s.%N > /root/ended"
WATCH_S = 240.0  # twice what plain SkyPilot takes from a job's end until its autodown has worked
REFUSED_S = 180.0  # the provider refuses deletes for so long
PATIENCE_S = 60  # the launcher's `provision_timeout_s` where ssh never opens; 900 is what it has otherwise
SHORT_S = 420  # the launcher's deadline where it is waited for, in seconds from renting
PROMPT_S = 60.0  # from a job's end until nothing bills

Judge = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Row:
    """One row; `judge` says what is wrong with a side's record, or nothing."""

    key: str
    done: str
    rule: str
    plain: Callable[[Plain], Seen]
    ours: Callable[[Ours], Seen]
    judge: Judge
    watch_s: float = WATCH_S
    words: tuple[str, ...] = ()  # for the cloud
    bare: bool = False


def gone(record: dict[str, Any]) -> str:
    """Nothing bills when the watch is over."""
    if record["alive"]:
        return f"still bills {record['watched_s']:.0f} s later, at ${record['usd_per_hour_alive']}/h"
    return ""


def wait(process: Any, seconds: float = LONG_S) -> int | None:
    """The exit code, once it is there; None when it has not come back within so long."""
    until(lambda: process.poll() is not None, seconds, must=False)
    code: int | None = process.poll()
    return code


def last_lines(text: str, count: int = 3) -> str:
    """The last that was said, on one line."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line) and line.strip()[0] not in "├└│"]
    return " / ".join(line if len(line) <= 160 else f"{line[:157]}..." for line in lines[-count:])


def told(code: int, outcome: dict[str, Any], err: str) -> str:
    """The launcher's own words of a run's end."""
    state, reason = outcome.get("state", ""), outcome.get("reason") or ""
    freed = {True: "all released", False: "release pending"}.get(outcome.get("released"), "")  # type: ignore[arg-type]
    return "; ".join(part for part in (state, reason, freed) if part) or last_lines(err) or f"exit {code}"


def ended(side: Side, machine: str) -> float:
    """When the job's last command came to its end on the machine, by its clock, which is ours."""
    return float(until(lambda: side.inside(machine, "cat /root/ended 2>/dev/null").strip()))


def last_step(ours: Ours) -> float:
    """When the last step of the launcher's run had ended on the machine: its first row file's date, which rsync kept.

    The stand-in writes its row files when it is done.
    """
    dates = [path.stat().st_mtime for path in ours.root.glob("runs/*/after/*") if path.is_file()]
    assert dates, f"the run did not come to its end: {ours.events()[-1]}"
    return min(dates)
