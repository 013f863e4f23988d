"""Learns that the run should end early: SIGTERM, SIGINT, or a file named STOP in OUT."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

STOP_FILE = "STOP"


class StopRequest:
    """True once someone asked to stop. Before `arm`, SIGTERM ends the process at once: there is nothing to save."""

    def __init__(self, out: Path) -> None:
        self._file = out / STOP_FILE
        self._signal: str | None = None

    def arm(self) -> None:
        """From now on finish the step, save, and end: the two signals only leave a note."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is not None:  # asked twice: at once, the checkpoints stay whole
            os._exit(128 + number)
        self._signal = signal.Signals(number).name

    @property
    def reason(self) -> str | None:
        """Who asked, or None."""
        if self._signal is not None:
            return self._signal
        return f"the file {STOP_FILE}" if self._file.exists() else None
