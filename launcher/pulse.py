"""Whether a runner still gets on: its main thread says so at every effect and wait, a thread of its own passes it on.

Passed on is the date of a file in the run's folder, set anew every two seconds while all is well: a process that was
stopped sets none, nor does one whose main thread has been stuck for long. The run's sentinel looks whether the date
changes, never at what it says: no clock has to be right. (Setting a date needs no room on a full disk.)

LAUNCHER_HUNG_S   SILENT[,STUCK], seconds: without a new date until the runner is taken for hung, and without a word
                  of its main thread until there is no new date. Standard library only: the sentinel reads it, too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE = "runner.alive"
VARIABLE = "LAUNCHER_HUNG_S"
#: Nothing that the main thread does without a word takes nearly so long as the second one: an answer of a machine or
#: a provider is waited for a minute or some, and a transfer says every few seconds that it goes on.
HUNG_S = (180.0, 1200.0)
BEAT_S = 2.0


class _MainThread:
    """When it was last heard, on a clock that stands still while the computer sleeps; whether it may be silent."""

    def __init__(self) -> None:
        self.ident, self.moved_at, self.unhurried = threading.main_thread().ident, time.monotonic(), 0


_main = _MainThread()


def patience() -> tuple[float, float]:
    """(SILENT, STUCK) in seconds, as LAUNCHER_HUNG_S has them."""
    with suppress(ValueError):
        held = [float(part) for part in os.environ.get(VARIABLE, "").split(",")]
        return (held[0], (held[1:] or [HUNG_S[1]])[0])
    return HUNG_S


def moved() -> None:
    """The main thread gets on. Said by another thread it means nothing."""
    if threading.get_ident() == _main.ident:
        _main.moved_at = time.monotonic()


@contextmanager
def unhurried() -> Iterator[None]:
    """In here the main thread may work without a word for as long as it takes: what is bounded by no answer."""
    _main.unhurried += 1
    try:
        yield
    finally:
        _main.unhurried -= 1
        moved()


class Pulse:
    """Beats in a run's folder from its making until it is closed."""

    def __init__(self, run_dir: Path) -> None:
        self._file, self._stuck_s = run_dir / FILE, patience()[1]
        self._over = threading.Event()
        moved()
        with suppress(OSError):  # without the file nobody can take us for hung
            self._file.touch()
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Beat no more."""
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            if _main.unhurried or time.monotonic() - _main.moved_at < self._stuck_s:
                with suppress(OSError):
                    os.utime(self._file)
