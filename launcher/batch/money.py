"""What a batch has approved, charged and reserved, and when a job that does not fit now may fit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from launcher.clock import parse_iso
from launcher.errors import RefusedError
from launcher.ledger import Caps, Ledger
from launcher.money import ZERO, Usd


@dataclass(frozen=True)
class Standing:
    """The amount of a batch, what its runs were charged, and what the open ones still hold; USD."""

    amount: Usd
    charged: Usd
    reserved: Usd

    @property
    def left(self) -> Usd:
        """What another run may still reserve."""
        return Usd(max(ZERO, self.amount - self.charged - self.reserved))


@dataclass(frozen=True)
class Deferral:
    """Why a job does not start now. `until` is known where only another day or month helps."""

    why: str
    never: bool = False
    until: datetime | None = None
    settles: bool = False  # it may fit once a reservation settles; else once a price moves


def standing(ledger: Ledger, batch_id: str, amount: Usd) -> Standing:
    """How the amount of a batch stands now."""
    charged = reserved = ZERO
    for run in ledger.batch_runs(batch_id):
        # The reservation first: a run that settles between the two questions counts too much, never too little.
        held, spent = ledger.reservation(run.run), ledger.spent(run.run)
        charged += spent
        if held is not None and held.settled_at is None:
            reserved += Usd(max(ZERO, held.amount_usd - spent))
    return Standing(amount, charged, reserved)


def deferral_of(error: RefusedError, ledger: Ledger, caps: Caps) -> Deferral:
    """What a refusal means: never, not before another day, or once something settles or a price moves."""
    when, frees_at = error.facts.get("when"), error.facts.get("frees_at")
    if when == "never" and error.facts.get("cap"):
        return Deferral(error.problem, never=True)
    if isinstance(frees_at, str):
        return Deferral(error.problem, until=parse_iso(frees_at))
    if when != "now":  # it fitted when it was approved: sold out now, or a source does not answer
        return Deferral(error.problem)
    short = [each for each in ledger.standings(caps) if each.period]
    if any(each.reserved > ZERO for each in short) or error.facts.get("cap") == "concurrent_runs":
        return Deferral(error.problem, settles=True)
    # All that counts against the caps is charged already: the tightest period has to end.
    tightest = min(short, key=lambda each: each.left)
    assert tightest.period is not None
    return Deferral(error.problem, until=tightest.period.ends)
