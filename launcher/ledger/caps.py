"""What a budget allows, and the days and months its caps are counted in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from launcher.money import ZERO, Usd

if TYPE_CHECKING:
    from launcher.budgets import Budget

PER_RUN, PER_DAY, PER_MONTH = "per_run_usd", "per_day_usd", "per_month_usd"
CONCURRENT, BATCH = "concurrent_runs", "batch_usd"


@dataclass(frozen=True)
class Caps:
    """The caps of one named budget, in USD; all hold at once. A cap of 0 allows nothing that costs money."""

    budget: str
    per_run_usd: Usd
    per_day_usd: Usd
    per_month_usd: Usd
    concurrent_runs: int  # runs that hold money at the same time; a run at $0 is not counted
    time_zone: str  # where a day and a month begin

    @classmethod
    def of(cls, name: str, budget: Budget, time_zone: str) -> Caps:
        """The caps of a budget in budgets.yaml."""
        return cls(
            name, budget.per_run_usd, budget.per_day_usd, budget.per_month_usd, budget.concurrent_runs, time_zone
        )

    @property
    def zone(self) -> ZoneInfo:
        """Where a day and a month begin."""
        return ZoneInfo(self.time_zone)

    def day(self, now: datetime) -> Period:
        """The calendar day of this moment: 23 or 25 hours where the clocks change."""
        local = now.astimezone(self.zone).date()
        return Period(self._begins(local), self._begins(local + timedelta(days=1)))

    def month(self, now: datetime) -> Period:
        """The calendar month of this moment."""
        local = now.astimezone(self.zone).date().replace(day=1)
        return Period(self._begins(local), self._begins((local + timedelta(days=31)).replace(day=1)))

    def untouched(self, now: datetime) -> list[Standing]:
        """How the caps stand while nothing was reserved or charged."""
        return [
            Standing(PER_RUN, self.per_run_usd, ZERO, ZERO),
            Standing(PER_DAY, self.per_day_usd, ZERO, ZERO, self.day(now)),
            Standing(PER_MONTH, self.per_month_usd, ZERO, ZERO, self.month(now)),
        ]

    def _begins(self, day: date) -> datetime:
        # fold=0: the first of two midnights; a midnight that the clocks skip is the moment they jump.
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)


@dataclass(frozen=True)
class Period:
    """From one moment (included) to another, UTC."""

    starts: datetime
    ends: datetime


@dataclass(frozen=True)
class Standing:
    """How one cap stands: what was charged in its period, and what open reservations still hold, USD."""

    cap: str
    limit: Usd
    charged: Usd
    reserved: Usd
    period: Period | None = None

    @property
    def left(self) -> Usd:
        """What can still be reserved under it: never below 0."""
        return Usd(max(ZERO, self.limit - self.charged - self.reserved))

    def holds(self, asked: Usd) -> bool:
        """Whether this much more fits: exactly at the cap does."""
        return self.charged + self.reserved + asked <= self.limit

    def ever_holds(self, asked: Usd) -> bool:
        """Whether it may fit once runs have settled, or another day or month has begun."""
        gone = ZERO if self.period else self.charged  # what a run or a batch has spent does not come back
        return gone + asked <= self.limit
