"""The line between a process that trains and the one that started it: how it ended goes up, and it never outlives it.

A process is one of several exactly when LINE is in its environment: the number of its end of a socket pair. What it
says there, once, is its ending; when the other end is gone, so is it. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, NoReturn

LINE = "RECIPE_LINE_FD"
#: What all of them begin again with after one has backed off, as JSON (see `Ending.again`).
AGAIN = "RECIPE_AGAIN"
MOST_BYTES = 1 << 16

_BY_WEIGHT = ("failed", "again", "killed", "crashed", "done")


@dataclass(frozen=True)
class Ending:
    """How one of several processes, or a whole machine of them, ended: exit code and a line for a person.

    done: as it should. failed: for a reason that it knows. again: not for good, all begin again with the settings of
    a plan that are in `again`. killed: by a signal. crashed: by an error, which may only be that another is gone.
    """

    kind: Literal["done", "failed", "again", "killed", "crashed"]
    code: int
    line: str
    again: dict[str, Any] | None = None

    @property
    def knows(self) -> bool:
        """Whether nobody else's ending can explain it better: who lost a peer ends by an error, not by a signal."""
        return self.kind in ("failed", "again", "killed")

    def packed(self) -> bytes:
        """For the line."""
        return json.dumps(asdict(self) | {"line": self.line[:4000]}).encode()


def unpacked(told: bytes) -> Ending | None:
    """What a process said, or None when it said nothing whole."""
    try:
        return Ending(**json.loads(told))
    except (ValueError, TypeError):
        return None


def cause(endings: list[Ending]) -> Ending:
    """Of endings in the order in which they were seen, the one that explains the others."""
    return min(endings, key=lambda ending: _BY_WEIGHT.index(ending.kind))


class BeginAgain(Exception):  # noqa: N818  (no failure: the next attempt goes on from the last checkpoint)
    """One of several processes cannot go on as planned: all begin again with these settings of the plan."""

    def __init__(self, words: str, **settings: Any) -> None:
        self.settings = settings
        super().__init__(words)


class Line:
    """A process's own end of its line."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)
        self._socket.set_inheritable(False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the first process is told by ours
        threading.Thread(target=self._watch, daemon=True).start()

    @classmethod
    def mine(cls) -> Line | None:
        """This process's line, when it is one of several."""
        number = os.environ.pop(LINE, "")
        return cls(int(number)) if number.isdigit() else None

    def _watch(self) -> None:
        with suppress(OSError):
            while self._socket.recv(64):
                pass
        os._exit(128 + signal.SIGKILL)  # whoever started it is gone: nobody would end it, or read what it makes

    def end(self, ending: Ending) -> NoReturn:
        """Say how it ended and end at once: no library's own ending waits for processes that are gone."""
        with suppress(OSError):
            self._socket.sendall(ending.packed())
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(ending.code)
