"""Runs on the rented machine until its deadline, then ends all work there and, where it may, the machine.

    python3 -c THIS_TEXT '{"root": …, "seconds": …, "collect_s": …, "clock": url, "also": [glob, …],
                           "destroy": {method, url, headers, body} or null}'

Standard library only, Python 3.8 or newer; nothing has to be installed before it.

The deadline is `seconds` from its start, counted on CLOCK_BOOTTIME, which goes on while a machine sleeps and which
nobody sets: a wrong or corrected time of day neither saves nor ends a job. A machine that its host halts and lets go
on counts none of that time. So the same number of seconds is counted on the provider's clock, too, from the Date of
any answer of `clock`, asked for now and then and whenever the machine's own two clocks drift apart. The machine's own
time of day decides only where nobody else's is to be had, and only when it is a day beyond: it may be a day wrong.

Before its deadline it ends a machine that nobody comes back to: nothing has run and nobody was heard for `collect_s`.
Whoever asks anything of this machine touches steps/watchdog/heard; a transfer that gets on counts as heard.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

PAUSE_S = 2.0
AGAIN_S = 30.0  # between two calls for the machine's end
ANSWER_S = 20.0
GRACE_S = 10.0  # from TERM to KILL
ASK_S = 600.0  # between two questions for the provider's time
DRIFT_S = 120.0  # between the machine's two clocks, before it is asked for out of turn
SURE_S = 60.0  # beyond the deadline by the provider's time: a Date is whole seconds, and late
WRONG_S = 90_000.0  # by which the machine's own time of day may be wrong: a day, and an hour
NAMES = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def now() -> float:
    """Seconds since the machine started, sleep included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def settings() -> dict[str, str]:
    """The settings that the provider gave to the machine: those of its first process, else our own."""
    try:
        pairs = Path("/proc/1/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return dict(os.environ)
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def filled(text: str, held: dict[str, str]) -> str:
    """A text with the names of settings replaced by what they hold here."""
    return NAMES.sub(lambda found: held.get(found[1], found[2] or ""), text)


def destroy(call: dict[str, Any]) -> tuple[bool, object]:
    """Ask the provider for this machine's end; whether it answered well, and what it said."""
    held = settings()
    body = filled(call["body"], held).encode() or None
    headers = {name: filled(value, held) for name, value in call["headers"].items()}
    request = urllib.request.Request(filled(call["url"], held), data=body, method=call["method"], headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:  # the provider's address, by our own order
            return True, reply.status
    except (OSError, ValueError) as error:
        return False, str(error)[:200]


def is_held(lock: Path) -> bool:
    """Whether a step's lock is held: its processes live."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def real_time(url: str) -> float | None:
    """Seconds since 1970 by the Date of whatever is answered there; None where nothing is."""
    try:
        request = urllib.request.Request(filled(url, settings()), method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
                date = reply.headers["Date"]
        except urllib.error.HTTPError as refusal:
            date = refusal.headers["Date"]
        return parsedate_to_datetime(date).timestamp()
    except (OSError, ValueError, TypeError, IndexError):
        return None


def processes(root: Path) -> Iterator[tuple[int, Path]]:
    """Every process that works in the lease's folder, or carries data into or out of it, but for our own group."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(entry.name)
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            inside = Path(os.readlink(str(entry / "cwd"))).parts[: len(root.parts)] == root.parts  # noqa: PTH115  3.8
            carries = argv[0].rpartition(b"/")[2] == b"rsync" and any(bytes(root) in word for word in argv)
            if (carries or inside) and os.getpgid(pid) != os.getpgrp():
                yield pid, entry


def carried(root: Path) -> int:
    """How many bytes the transfers that run have read and written so far."""
    total = 0
    for _, entry in processes(root):
        with suppress(OSError, ValueError):
            if (entry / "comm").read_text().strip() == "rsync":
                lines = (entry / "io").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line[:5] in ("rchar", "wchar"))
    return total


def heard(root: Path) -> int:
    """When somebody last asked something of this machine, by its file's date; only whether it changes counts."""
    try:
        return (root / "steps" / "watchdog" / "heard").stat().st_mtime_ns
    except OSError:
        return 0


def wait(root: Path, orders: dict[str, Any]) -> str:
    """Until all work here is to end; why."""
    began, wall = now(), time.time()
    ends, collect_s = began + orders["seconds"], orders["collect_s"]
    lively, last, moved, drift, asked = began, heard(root), carried(root), 0.0, -ASK_S
    real_ends: float | None = None
    while now() < ends:
        at = now()
        word = heard(root)
        if word != last or working(root):
            last, lively = word, at
        elif at - lively >= min(30.0, collect_s / 2):
            held, moved = moved, carried(root)
            lively = at if moved > held else lively
        if at - lively >= collect_s:
            return "nobody came to collect"
        drifted = time.time() - wall - (at - began)
        if at - asked >= ASK_S or abs(drifted - drift) > DRIFT_S:
            drift, asked = drifted, at
            real = real_time(orders["clock"]) if orders["clock"] else None
            if real is not None and real_ends is None:
                real_ends = real + (ends - at)
            elif real is not None and real_ends is not None and real >= real_ends + SURE_S:
                return "the deadline, by the provider's clock"
        if real_ends is None and time.time() - wall >= orders["seconds"] + WRONG_S:
            return "the deadline, by its own time of day"
        time.sleep(min(PAUSE_S, collect_s / 4, max(0.0, ends - now())))
    return "the deadline"


def working(root: Path) -> list[int]:
    """The process groups of the steps that still run, but for this one."""
    found = []
    for folder in sorted((root / "steps").glob("*")):
        if folder.name == "watchdog" or not is_held(folder / "lock"):
            continue
        with suppress(OSError, ValueError, KeyError):
            found.append(int(json.loads((folder / "alive.json").read_text(encoding="utf-8"))["pid"]))
    return found


def stop_work(root: Path) -> None:
    """End every step, the whole group of each, and whatever else works in the folder: TERM, then KILL."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for group in working(root):
            with suppress(OSError):
                os.killpg(group, signum)
        for pid, _ in processes(root):
            with suppress(OSError):
                os.kill(pid, signum)
        ends = now() + GRACE_S
        while (working(root) or any(True for _ in processes(root))) and now() < ends:
            time.sleep(0.1)


def wipe(root: Path, also: list[str]) -> None:
    """Remove all that was sent and made here, logs and caches too. How each step ended is left, and our word."""
    doomed = [path for path in root.glob("*") if path.name not in ("steps", "watchdog.json")]
    doomed += root.glob("steps/*/log")
    for path in doomed + [path for pattern in also for path in Path("/").glob(pattern.lstrip("/"))]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path), ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def tell_console(text: str) -> None:
    """A line where a container's provider shows what it prints; it is not waited for."""
    with suppress(OSError):
        handle = os.open("/proc/1/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with suppress(OSError):
            os.write(handle, (text + "\n").encode())
        os.close(handle)


def say(root: Path, **facts: object) -> None:
    """What happened, where whoever still comes to look can read it."""
    with suppress(OSError):
        part = root / ".watchdog.json.part"
        part.write_text(json.dumps({"t": time.time(), **facts}), encoding="utf-8")
        part.replace(root / "watchdog.json")


def main(orders: dict[str, Any]) -> None:
    """Wait; then work towards the end for as long as the machine is there."""
    root, call = Path(orders["root"]), orders["destroy"]
    say(root, state="watching", seconds=orders["seconds"], collect_s=orders["collect_s"])
    why, told = wait(root, orders), False
    stop_work(root)
    while True:
        done, said = destroy(call) if call else (False, "this machine may not end itself")
        if not done:
            wipe(root, orders["also"])
        say(root, state="ended", why=why, asked=bool(call), answered=done, said=said)
        if not told:
            tell_console(f"parakeet-launcher: all work here has ended ({why}); this machine waits for its release")
            told = True
        time.sleep(AGAIN_S)
        stop_work(root)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
