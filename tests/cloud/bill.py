"""What a machine costs: the provider's own book, in exact dollars, by its own billing step."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

HOURS_A_MONTH = Decimal(730)


@dataclass
class Line:
    """One rate over one stretch of time (seconds since 1970; no end: still running)."""

    what: str  # gpu, disk
    usd_per_hour: Decimal
    since: float
    until: float | None = None

    def seconds(self, now: float, step_s: int) -> int:
        """Whole billing steps, a begun one in full."""
        long = Decimal(str(max(0.0, (self.until if self.until is not None else now) - self.since)))
        return int((long / step_s).to_integral_value(ROUND_CEILING)) * step_s

    def usd(self, now: float, step_s: int) -> Decimal:
        return self.usd_per_hour * self.seconds(now, step_s) / 3600


class Meter:
    """The lines of one machine; at most one of each kind runs."""

    def __init__(self, step_s: int) -> None:
        self.step_s = step_s
        self.lines: list[Line] = []

    def start(self, what: str, usd_per_hour: Decimal, now: float) -> None:
        self.stop(what, now)
        if usd_per_hour:
            self.lines.append(Line(what, usd_per_hour, now))

    def stop(self, what: str, now: float) -> None:
        for line in self.lines:
            if line.what == what and line.until is None:
                line.until = now

    def stop_all(self, now: float) -> None:
        for what in {line.what for line in self.lines}:
            self.stop(what, now)

    @property
    def runs(self) -> bool:
        return any(line.until is None for line in self.lines)

    @property
    def hourly(self) -> Decimal:
        """What it costs an hour now."""
        return sum((line.usd_per_hour for line in self.lines if line.until is None), Decimal(0))

    def usd(self, now: float, what: str | None = None) -> Decimal:
        """To six digits, as the launcher's ledger keeps it; begun microdollars are charged."""
        exact = sum((line.usd(now, self.step_s) for line in self.lines if what in (None, line.what)), Decimal(0))
        return exact.quantize(Decimal("0.000001"), rounding=ROUND_CEILING)

    def seconds(self, now: float, what: str) -> int:
        return sum(line.seconds(now, self.step_s) for line in self.lines if line.what == what)
