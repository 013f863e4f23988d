"""The contract every provider keeps: create, find, list, rate, destroy, connect; and what may be believed of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from launcher.hosts.base import Host
from launcher.money import Usd
from launcher.offers.offer import Offer


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


@dataclass(frozen=True)
class Listing:
    """All machines of the account, and whether the provider's answer was whole."""

    machines: tuple[Machine, ...]
    complete: bool


class Provider(Protocol):
    """One way to get a machine. Only `create` can start billing."""

    name: str
    released_by: tuple[str, ...]  # who ends it when this machine dies now, in words

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

    def destroy(self, machine: Machine) -> None:
        """Ask for its end; idempotent. That it is gone is proven by `find` and `listing`, not by this."""
        ...
