"""Asking a provider that bills: bounded in time and size, the key in one header, and errors that never quote it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from launcher.clock import Clock, iso
from launcher.failpoints import effect
from launcher.money import ZERO, Usd
from launcher.offers import bounded
from launcher.offers.source import MOST_USD_PER_GPU_HOUR, Context, SourceError, clean, usd
from launcher.providers.base import ProviderError
from launcher.redact import HIDDEN, redact

ANSWER_S = 30.0  # for a question: runpod 1.10.1 waits as long
CREATE_S = 120.0  # for a create: vastai-sdk 1.9.1 waits as long; giving up early proves nothing and costs a search

#: More than any offer asks: what a rate counts as that the provider does not tell. No approval allows it.
UNTOLD_USD_PER_HOUR = Usd(MOST_USD_PER_GPU_HOUR)


@dataclass(frozen=True)
class Said:
    """An answer, good or not: its status and its JSON."""

    status: int
    body: Any

    @property
    def good(self) -> bool:
        """Whether the provider did what was asked, as far as HTTP says it."""
        return 200 <= self.status < 300


class Line:
    """Questions to one provider. Nothing is asked twice here, and no redirect is followed."""

    def __init__(self, name: str, key: str, clock: Clock) -> None:
        self.name = name
        self._key, self._clock = key, clock

    @effect("provider.request")
    def ask(self, method: str, url: str, body: Any = None, *, seconds: float = ANSWER_S) -> Said:
        """The answer of whatever status; raises ProviderError for none, a late, an endless one, or a good one that

        is no JSON. The body of a bad one that is none is None.
        """
        ctx = Context(self._clock, 0.0, ends=time.monotonic() + seconds)
        try:
            reply = bounded.exchange(ctx, url, body=body, method=method,
                                     headers={"Authorization": f"Bearer {self._key}"})  # fmt: skip
        except SourceError as error:
            raise self.error(str(error)) from None
        try:
            return Said(reply.status, reply.json())
        except SourceError as error:
            if 200 <= reply.status < 300:
                raise self.error(str(error)) from None
            return Said(reply.status, None)

    def words(self, text: object) -> str:
        """A stranger's words on one line, without our key."""
        return clean(redact(str(text).replace(self._key, HIDDEN)))

    def error(self, text: object, kind: type[ProviderError] = ProviderError, fix: str = "") -> ProviderError:
        """An error that names the provider and what it said."""
        return kind(f"{self.name} {self.words(text)}.", fix=fix)


def rate_of(value: object) -> Usd | None:
    """Dollars an hour as a provider says them, or None where they are missing, negative or no number."""
    try:
        rate = usd(value, "rate")
    except ValueError:
        return None
    return rate if ZERO <= rate <= UNTOLD_USD_PER_HOUR * 1000 else None


def moment_of(value: object) -> str | None:
    """A time as providers write it (ISO 8601, or seconds since 1970) in ISO 8601 UTC; None for anything else."""
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return iso(found if found.tzinfo else found.replace(tzinfo=UTC))
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return iso(datetime.fromtimestamp(value, UTC))
    except (ValueError, OverflowError, OSError):
        pass
    return None
