"""Runs on the rented machine until its deadline, then ends all work there and, where it may, the machine.

    python3 -c THIS_TEXT '{"root": …, "seconds": …, "destroy": {method, url, headers, body} or null}'

Standard library only, Python 3.8 or newer; nothing has to be installed before it. It counts on CLOCK_BOOTTIME, which
goes on while a machine sleeps and which nobody sets: a wrong or corrected time of day neither saves nor ends a job.
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
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

PAUSE_S = 2.0
AGAIN_S = 30.0  # between two calls for the machine's end
ANSWER_S = 20.0
GRACE_S = 10.0  # from TERM to KILL
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
    """End every step: TERM, then KILL, the whole group of each."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for group in working(root):
            with suppress(OSError):
                os.killpg(group, signum)
        ends = now() + GRACE_S
        while working(root) and now() < ends:
            time.sleep(0.1)


def wipe(root: Path) -> None:
    """Remove all that was sent and made here; what says that this was done is left."""
    for path in root.iterdir() if root.is_dir() else ():
        if path.name == "steps":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path), ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def say(root: Path, **facts: object) -> None:
    """What happened, where whoever still comes to look can read it."""
    with suppress(OSError):
        part = root / ".watchdog.json.part"
        part.write_text(json.dumps({"t": time.time(), **facts}), encoding="utf-8")
        part.replace(root / "watchdog.json")


def main(orders: dict[str, Any]) -> None:
    """Wait for the deadline; then work towards the end for as long as the machine is there."""
    root, call = Path(orders["root"]), orders["destroy"]
    ends = now() + orders["seconds"]
    say(root, state="watching", seconds=orders["seconds"])
    while now() < ends:
        time.sleep(min(PAUSE_S, max(0.0, ends - now())))
    stop_work(root)
    while True:
        done, said = destroy(call) if call else (False, "this machine may not end itself")
        if not done:
            wipe(root)
        say(root, state="ended", asked=bool(call), answered=done, said=said)
        time.sleep(AGAIN_S)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
