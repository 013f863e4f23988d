"""Leads a training on several devices or machines: starts its processes, begins again smaller, says how it ended."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from recipes.contract import EventLog
from recipes.finetune.crew import WORDS_S, Crew
from recipes.finetune.line import Ending, cause
from recipes.finetune.meeting import Guest, Head
from recipes.finetune.places import Place, free_port
from recipes.room import last_words

LOOK_S = 0.1
#: How long another machine waits for the head's word after its own processes failed.
VERDICT_S = 60.0
#: Where the processes beside the first keep what only they need, in OUT.
ASIDE = ".processes"


class Asked:
    """Passes the signals that ask for an end on to the first process of whatever crew there is."""

    def __init__(self) -> None:
        self.crew: Crew | None = None
        self.unheard = False  # nobody was there to hear it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)

    def _pass_on(self, _number: int, _frame: FrameType | None) -> None:
        if self.crew is None or not self.crew.ask(signal.SIGTERM):
            self.unheard = True

    @property
    def ending(self) -> Ending | None:
        """The end that nobody heard of but this process."""
        code = 128 + signal.SIGTERM
        return Ending("killed", code, "ended while its processes were being started") if self.unheard else None


def lead(place: Place, out: Path, recipe: str = "finetune") -> int:
    """Train with `place`; returns the recipe's exit code. Every ending is one line on stderr."""
    asked = Asked()
    events = EventLog(out) if place.is_head else None

    def warn(message: str) -> None:
        if events is not None:
            events.emit("warning", message=message)

    try:
        ending = _as_head(place, asked, warn) if place.is_head else _as_guest(place, asked)
    except OSError as error:
        ending = Ending("failed", 1, f"the machines of this job cannot meet: {error}")
    if ending.kind != "done" and events is not None:
        last_words(out, ending.code, ending.line)
    print(f"{recipe}: {ending.line}", file=sys.stderr)  # noqa: T201
    return ending.code


def _as_head(place: Place, asked: Asked, warn: Callable[[str], None]) -> Ending:
    head = Head(place) if place.nodes > 1 else None
    ending = Ending("killed", 1, "the first machine was ended")
    try:
        absent = head.gather(lambda: asked.ending) if head else None
        again = None
        while absent is None:
            port = free_port()
            if head:
                head.begin(port, again)
            crew = asked.crew = Crew(place, port, again)
            try:
                ending = _watch(crew, head, asked)
            finally:
                crew.end()
            if ending.kind != "again":
                return ending
            warn(ending.line)
            again = ending.again
        ending = absent
        return ending
    finally:
        if head:
            head.close(ending)


def _watch(crew: Crew, head: Head | None, asked: Asked) -> Ending:
    """Until it is known how it ended, on this machine or another."""
    died_at: float | None = None
    while True:
        here, elsewhere = crew.look(), head.endings() if head else []
        bad = [*elsewhere, *([here] if here and here.kind != "done" else [])]
        if bad:
            died_at = died_at or time.monotonic()
            found = cause(bad)
            if found.knows or head is None or time.monotonic() - died_at > WORDS_S:
                return found
        elif here is not None:
            return here
        if asked.ending:
            return asked.ending
        time.sleep(LOOK_S)


def _as_guest(place: Place, asked: Asked) -> Ending:
    guest = Guest(place, lambda: asked.ending)
    crew: Crew | None = None
    ended: Ending | None = None
    waits_until = 0.0
    try:
        while True:
            told = guest.told(LOOK_S)
            if isinstance(told, Ending):
                return told
            if told is not None:
                if crew:
                    crew.end()
                crew, ended = Crew(place, *told), None
                asked.crew = crew
            if crew and ended is None and (ended := crew.look()):
                guest.tell(ended)
                waits_until = time.monotonic() + VERDICT_S
            if ended and (ended.kind == "done" or time.monotonic() > waits_until):
                return ended
            if asked.ending:
                return asked.ending
    finally:
        if crew:
            crew.end()
        guest.close()


