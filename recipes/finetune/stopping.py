"""Learns that a run should end early (SIGTERM, SIGINT, a file STOP in OUT) or on a shorter schedule (TRIM.json)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

STOP_FILE = "STOP"

#: OUT/TRIM.json, {"max_steps": N}: end the schedule at optimizer step N of the whole run, annealed as planned. Read
#: after each step; only ever shortens; N below the steps done means now. Ends in STOPPED_AT_LIMIT. To be put in place
#: whole (renamed), as `SshHost.put` does. What was taken up stays, whether or not the file does.
TRIM_FILE = "TRIM.json"


class StopRequest:
    """True once someone asked to stop. Before `arm`, SIGTERM ends the process at once: there is nothing to save."""

    def __init__(self, out: Path, numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
        self._file, self._numbers = out / STOP_FILE, numbers
        self._signal: str | None = None

    def arm(self) -> None:
        """From now on finish the step, save, and end: the signals only leave a note."""
        for number in self._numbers:
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


class TrimRequest:
    """Reads OUT/TRIM.json whenever it changed; what is wrong with it is said once and otherwise ignored."""

    def __init__(self, out: Path, warn: Callable[[str], None]) -> None:
        self._file, self._warn = out / TRIM_FILE, warn
        self._seen: tuple[int, int] | None = None

    def max_steps(self) -> int | None:
        """What a new or changed file asks for; None when there is nothing new."""
        try:
            found = self._file.stat()
            if (found.st_mtime_ns, found.st_size) == self._seen:
                return None
            self._seen = found.st_mtime_ns, found.st_size
            asked = json.loads(self._file.read_text(encoding="utf-8"))["max_steps"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._warn(f'{TRIM_FILE} is not {{"max_steps": N}} ({type(error).__name__}): ignored')
            return None
        if type(asked) is not int or asked < 1:
            self._warn(f"{TRIM_FILE}: max_steps must be a whole number above 0 (it is {asked!r:.80}): ignored")
            return None
        return asked
