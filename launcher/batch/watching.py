"""Watches a batch: a line for what happened, one that stays for where it stands, and what Ctrl-C means."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

    from launcher.cli.output import Output
    from launcher.clock import Clock


class Watch:
    """Speaks for a batch that goes on; at every turn it says what the person (or the signal) asked for."""

    def __init__(self, out: Output, clock: Clock) -> None:
        self._out, self._clock = out, clock
        self._asked: str | None = None
        self._pending = False
        self._status: Status | None = None

    @contextmanager
    def listening(self) -> Iterator[Watch]:
        """With a terminal Ctrl-C offers a choice; without one SIGINT and SIGTERM mean: release everything now."""
        on_ctrl_c = self._offer if self._out.interactive else self._now
        before = signal.signal(signal.SIGINT, on_ctrl_c), signal.signal(signal.SIGTERM, self._now)
        try:
            if self._out.interactive and not self._out.quiet:
                with self._out.console.status("", spinner="dots") as self._status:
                    yield self
            else:
                yield self
        finally:
            self._status = None
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])

    def say(self, text: str) -> None:
        """Tell one thing that happened, with the time of day (local)."""
        self._out.say(f"{self._clock.now().astimezone():%H:%M:%S}  {text}")

    def asked(self, line: str) -> str | None:
        """Show where the batch stands; returns what was asked since: None, `leave`, `collect` or `now`."""
        if self._status is not None:
            self._status.update(f"[dim]{line} · Ctrl-C: leave or stop[/dim]")
        if self._pending:
            self._choose()
        asked, self._asked = self._asked, None
        return asked

    def _now(self, *_: object) -> None:
        self._asked = "now"
        self._out.warn("stopping: nothing new is started, what runs is released at once")

    def _offer(self, *_: object) -> None:
        if self._pending:
            self._now()
        self._pending = True

    def _choose(self) -> None:
        """Ask what Ctrl-C meant; a second one releases now."""

        def second(*_: object) -> None:
            raise KeyboardInterrupt

        if self._status is not None:
            self._status.stop()
        held = signal.signal(signal.SIGINT, second)
        try:
            self._out.say("d: leave what runs running, no more    c: fetch what there is, then release all")
            self._out.say("Enter: go on                           Ctrl-C again: release all now")
            answer = input("> ").strip().lower()
        except EOFError:
            answer = "d"
        except KeyboardInterrupt:
            answer = "now"
        finally:
            signal.signal(signal.SIGINT, held)
            self._pending = False
        if answer == "now":
            self._now()
        elif answer.startswith("d"):
            self._asked = "leave"
        elif answer.startswith("c"):
            self._asked = "collect"
            self._out.say("Nothing new is started; what runs is fetched as it is, then released.")
        if self._status is not None:
            self._status.start()
