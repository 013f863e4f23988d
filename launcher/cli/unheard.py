"""What a verb does when nobody can hear it: a closed pipe, a terminal that is gone, a full disk under its output."""

from __future__ import annotations

import os
import sys
from typing import Any


def open_streams() -> None:
    """See that there are three standard streams: what is opened first otherwise takes their numbers, and their words.

    A caller may have closed them (`launcher run job.yaml >&- 2>&-`); then they lead nowhere.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def go_on_unheard() -> None:
    """From now on words that cannot be written are dropped: for verbs whose work, and exit code, matter without them.

    Without this a `launcher run | head` would end in the midst, and answer for a run that is not over.
    """
    sys.stdout, sys.stderr = _Unheard(sys.stdout), _Unheard(sys.stderr)


class _Unheard:
    """A stream that goes on where nobody reads it any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # a closed pipe, a terminal that hung up, no space
            self._lose()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """Let it lead nowhere from now on; what it still held goes there, too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
