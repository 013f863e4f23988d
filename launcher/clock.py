"""Time as a value that is passed in, so that tests never wait for the real one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from launcher.pulse import moved


class Clock(Protocol):
    """Wall time (aware, UTC), monotonic seconds, and sleep."""

    def now(self) -> datetime:
        """This moment, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """This moment, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        moved()
        time.sleep(seconds)
        moved()


def iso(moment: datetime) -> str:
    """ISO 8601 UTC with milliseconds, such as 2026-11-20T11:00:15.250Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """The moment an ISO 8601 text names; raises ValueError when it names no time zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return moment.astimezone(UTC)
