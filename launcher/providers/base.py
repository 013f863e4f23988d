"""The contract every provider keeps: create, find, list, rate, destroy, connect; and what may be believed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from launcher.clock import parse_iso
from launcher.errors import ExitCode, LauncherError
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import ZERO, Usd
from launcher.offers.offer import Offer
from launcher.providers.traits import Traits


class ProviderError(LauncherError):
    """The provider was not reached, or made no sense. After a create: nobody knows whether it created (exit 5)."""

    exit_code = ExitCode.RECIPE_FAILED


class CreateRefusedError(ProviderError):
    """By the provider's own word nothing was created, and the same request would be refused again (exit 5)."""


class SoldOutError(CreateRefusedError):
    """Nothing was created: this offer is gone; another one may be tried (exit 5)."""


class MachineFailedError(ProviderError):
    """The machine exists and will never answer, by the provider's own word: it is to be released (exit 5)."""


class Presence(Enum):
    """What a provider's answer proves. An empty, partial or malformed one proves nothing: UNKNOWN."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Machine:
    """A rented machine: the provider's own reference, the label it carries, its rate as the provider says it.

    `usd_per_hour` is for the machine without its disk, as an Offer's is. `facts` are JSON, kept in the ledger, so
    that another process, days later, connects, charges and destroys with no other memory. Those that all share:
    `billed_from`, `ended_at` (ISO 8601 UTC, where the provider says them or we asked), `disk_usd_per_hour`. A lease
    of several machines is one Machine, its first: rate and disk are those of all, and `nodes` in its facts says for
    each, the first one first: `ref`, `usd_per_hour` and the facts that differ.
    """

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
    disk_gb: int = 60
    image: str = ""  # what the machine runs; empty: the provider's default of ours
    keys: LeaseKeys | None = None  # this lease's own pair: its public half is authorized there


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


def by_rate(machine: Machine, since: datetime, until: datetime, step_s: int = 1) -> Charge:
    """Rate and disk times time: begun billing steps of `step_s` seconds and begun microdollars charged in full."""
    seconds = Decimal(str(max(0.0, (until - since).total_seconds())))
    seconds = (seconds / step_s).to_integral_value(ROUND_CEILING) * step_s
    hourly = Decimal(machine.usd_per_hour) + Decimal(str(machine.facts.get("disk_usd_per_hour", 0)))
    exact = hourly * seconds / 3600
    return Charge(Usd(exact.quantize(Decimal("0.000001"), rounding=ROUND_CEILING)), "rate x time")


def as_one(machines: Sequence[Machine]) -> Machine:
    """The machines of one lease, the first one first, as one."""
    first = machines[0]
    if len(machines) == 1:
        return first
    nodes = [{"ref": one.ref, "usd_per_hour": str(one.usd_per_hour), **one.facts} for one in machines]
    disk = sum((Decimal(str(one.facts.get("disk_usd_per_hour", 0))) for one in machines), Decimal(0))
    began = [str(one.facts["billed_from"]) for one in machines if one.facts.get("billed_from")]
    facts = {**first.facts, "disk_usd_per_hour": str(disk), "nodes": nodes}
    if began:
        facts["billed_from"] = min(began)
    return replace(first, usd_per_hour=sum((one.usd_per_hour for one in machines), ZERO), facts=facts)


def each_of(machine: Machine) -> tuple[Machine, ...]:
    """The machines that a lease's Machine stands for."""
    nodes = machine.facts.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        return (machine,)
    return tuple(
        Machine(str(node["ref"]), machine.label, Usd(str(node["usd_per_hour"])),
                {name: held for name, held in node.items() if name not in ("ref", "usd_per_hour")})
        for node in nodes
    )  # fmt: skip


def by_rate_of_each(machine: Machine, since: datetime, until: datetime, step_s: int = 1) -> Charge:
    """As `by_rate`, for each machine of a lease from when it was billed itself, and not before `since`."""
    found = [by_rate(one, max(since, _began(one, since)), until, step_s) for one in each_of(machine)]
    return Charge(sum((one.amount for one in found), ZERO), found[0].source)


def _began(machine: Machine, else_: datetime) -> datetime:
    told = machine.facts.get("billed_from")
    return parse_iso(str(told)) if told else else_


class Provider(Protocol):
    """One way to get a machine. Only `create` can start billing."""

    name: str
    traits: Traits

    def unusable(self) -> str | None:
        """Why nothing can be rented or released there from here (no key, no program), with the fix; None when it can.

        Asks nobody: what is missing on this machine is all that it looks at.
        """
        ...

    def create(self, intent: Intent) -> Machine:
        """Can leave something billing. Create a machine that carries the intent's label; never retried blindly.

        Returns as soon as the provider has said what it created. Raises SoldOutError or CreateRefusedError when
        nothing was created; after anything else it raises, the label has to be looked for.
        """
        ...

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """Whether a machine with this label exists, by exact lookup, and what the provider says of it now.

        Never raises for what a provider may answer or fail to answer: that is UNKNOWN.
        """
        ...

    def listing(self) -> Listing:
        """All machines of the account, ours and others'. What was not whole or not understood is not `complete`."""
        ...

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """The machine as a host, with this lease's keys; None while the provider does not say where it answers.

        Raises MachineFailedError when it never will. That a host is returned does not mean that ssh answers yet.
        """
        ...

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """Put the machine's end at `deadline` into force on the machine itself, before any data is sent there.

        Returns in words which layers hold now, and is repeated after a restart without harm.
        """
        ...

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """What a machine that is gone has cost from `since` to `until`: by its invoice, else by its own rate."""
        ...

    def destroy(self, machine: Machine) -> None:
        """Ask for its end; idempotent, also for one that is gone. Raises ProviderError when it could not be asked.

        That it is gone is proven by `find` and `listing`, not by this.
        """
        ...

    def forget(self, label: str) -> None:
        """Clean up here what belonged to a lease that is released: daemons, private homes, keys. Idempotent."""
        ...


@runtime_checkable
class StartsTogether(Protocol):
    """A provider that rents several machines as one lease, and starts a command on all of them at once."""

    def start_together(self, machine: Machine, name: str, script: str) -> None:
        """Have each of the lease's machines run this bash, all or none; the first one has rank 0. Returns once asked.

        Each gets SKYPILOT_NODE_RANK, SKYPILOT_NODE_IPS (a line each, the first machine's first), SKYPILOT_NUM_NODES
        and SKYPILOT_NUM_GPUS_PER_NODE. Where it fails on one, it is ended on all. A start of the same machines that
        was asked for before, and what it started, is ended first. Raises ProviderError.
        """
        ...


@runtime_checkable
class CreatesAside(Protocol):
    """A provider whose create goes on in processes of its own, though whoever asked for it is dead."""

    def abandon(self, label: str) -> bool:
        """End here all that could still create the lease's machine; whether anything could. Asks nobody; idempotent.

        Before it, that a machine of the lease is absent proves nothing.
        """
        ...

    def may_have_created(self, label: str) -> bool:
        """Whether the lease's create was asked for, and nobody heard that it came to nothing. Asks nobody.

        Then a machine may have come and gone by itself, though no launcher ever saw it.
        """
        ...
