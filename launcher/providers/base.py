"""The contract every provider keeps: create, find, list, rate, destroy, connect; and what may be believed of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from enum import Enum
from typing import Any, Protocol

from launcher.hosts.base import Host
from launcher.money import ZERO, Usd
from launcher.offers.offer import Offer
from launcher.providers.traits import Traits


class Presence(Enum):
    """What a provider's answer proves. An empty, partial or malformed one proves nothing: UNKNOWN."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Machine:
    """A rented machine: the provider's own reference, the label it carries, its rate as the provider says it."""

    ref: str
    label: str
    usd_per_hour: Usd
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Intent:
    """What to create, as the ledger already holds it."""

    label: str
    offer: Offer
    max_usd_per_hour: Usd
    deadline: str
    reserved_usd: Usd = ZERO


@dataclass(frozen=True)
class Listing:
    """All machines of the account, and whether the provider's answer was whole."""

    machines: tuple[Machine, ...]
    complete: bool


@dataclass(frozen=True)
class Charge:
    """Dollars, and by whose word: 'free', 'rate x time', 'invoice'."""

    amount: Usd
    source: str


def by_rate(machine: Machine, since: datetime, until: datetime) -> Charge:
    """Rate times time, begun microdollars charged in full."""
    seconds = Decimal(str(max(0.0, (until - since).total_seconds())))
    exact = Decimal(machine.usd_per_hour) * seconds / 3600
    return Charge(Usd(exact.quantize(Decimal("0.000001"), rounding=ROUND_CEILING)), "rate x time")


class Provider(Protocol):
    """One way to get a machine. Only `create` can start billing."""

    name: str
    traits: Traits

    def offers(self) -> list[Offer]:
        """What can be rented now."""
        ...

    def create(self, intent: Intent) -> Machine:
        """Can leave something billing. Create a machine that carries the intent's label; never retried blindly."""
        ...

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """Whether a machine with this label exists, by exact lookup."""
        ...

    def listing(self) -> Listing:
        """All our machines."""
        ...

    def connect(self, machine: Machine) -> Host:
        """The machine as a host."""
        ...

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """What a machine that is gone has cost from `since` to `until`: by its invoice, else by its own rate."""
        ...

    def destroy(self, machine: Machine) -> None:
        """Ask for its end; idempotent. That it is gone is proven by `find` and `listing`, not by this."""
        ...
