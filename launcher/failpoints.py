"""Names every external effect, so that a test can kill this very process just before or just after any of them.

    with effect("provider.create"):     # passes failpoint provider.create.before, then provider.create.after
        ...

For tests alone, by the environment; without it a passing costs one look at a variable:

LAUNCHER_FAILPOINT        `[WHO@]NAME[:N]`, several with commas: SIGKILL to this process when it passes that failpoint
                          (`*`: any) for the N-th time (1). WHO: the module it was started as: runner, sentinel, …
LAUNCHER_FAILPOINT_FIRED  a folder that remembers which of them have fired, so that whoever goes on afterwards with
                          the same environment is not killed again.
LAUNCHER_FAILPOINT_FILLS  a file: instead of being killed, the process lets it grow until the disk it is on is full.
LAUNCHER_FAILPOINT_LOG    a file; each passing appends `WHO PID TID NAME` and a newline, in one write.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import ContextDecorator, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from launcher.pulse import moved

T = TypeVar("T")

VARIABLE, FIRED, LOG = "LAUNCHER_FAILPOINT", "LAUNCHER_FAILPOINT_FIRED", "LAUNCHER_FAILPOINT_LOG"
FILLS = "LAUNCHER_FAILPOINT_FILLS"
_ON = bool(os.environ.get(VARIABLE) or os.environ.get(LOG))


class Effect(ContextDecorator):
    """One external effect, as a context or as a decorator; holds no state, so that it may nest and be shared."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Effect:
        moved()
        if _ON:
            _pass(f"{self.name}.before")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        moved()
        if _ON:
            _pass(f"{self.name}.after")


def effect(name: str) -> Effect:
    """Mark what is done inside as the external effect `name`: dotted words, what is acted on first."""
    return Effect(name)


def marked(thing: T, prefix: str, verbs: Iterable[str]) -> T:
    """The same object; while a test asks for it, each of these methods of it is the effect `prefix.verb`."""
    for verb in verbs if _ON else ():
        setattr(thing, verb, effect(f"{prefix}.{verb}")(getattr(thing, verb)))
    return thing


def who() -> str:
    """The module that this process was started as: `runner` of `python -m launcher.runner`; else the program."""
    given = sys.orig_argv
    if "-m" in given[1:-1]:
        return given[given.index("-m") + 1].rpartition(".")[2]
    return Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else "python"


_passed: Counter[str] = Counter()


def _pass(name: str) -> None:
    if log := os.environ.get(LOG):
        line = f"{who()} {os.getpid()} {threading.get_native_id()} {name}\n"
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode())
        os.close(file)
    _passed[name] += 1
    _passed["*"] += 1
    for number, given in enumerate(filter(None, os.environ.get(VARIABLE, "").split(","))):
        whom, _, point = given.rpartition("@")
        wanted, _, times = point.partition(":")
        if whom in ("", who()) and wanted in (name, "*") and _passed[wanted] == int(times or 1) and _first(number):
            if filler := os.environ.get(FILLS):
                fill(Path(filler))
            else:
                os.kill(os.getpid(), signal.SIGKILL)


def fill(file: Path) -> None:
    """Let a file grow until not one byte more is to be had on its disk."""
    with suppress(OSError), file.open("ab", buffering=0) as held:
        while True:
            held.write(bytes(1 << 16))


def _first(number: int) -> bool:
    """Whether this one has not fired yet, in this process or in another."""
    folder = os.environ.get(FIRED)
    if not folder:
        return True
    try:
        os.close(os.open(Path(folder) / str(number), os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True
