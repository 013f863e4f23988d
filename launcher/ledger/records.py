"""The ledger's rows as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Table

from launcher.ledger import schema as t
from launcher.ledger.states import RUN_TERMINAL, LeaseState, RunState
from launcher.money import Usd


@dataclass(frozen=True)
class Run:
    """One row of the runs table."""

    run: str
    state: RunState
    reason: str | None
    exit_code: int | None
    created_at: str
    updated_at: str
    owner: str
    plan: dict[str, Any]
    digest: str
    outcome: dict[str, Any] | None
    batch: str | None
    item: int | None
    place: str | None

    @property
    def over(self) -> bool:
        """Whether the run has ended (its leases may not have)."""
        return self.state in RUN_TERMINAL


@dataclass(frozen=True)
class Lease:
    """One row of the leases table."""

    lease: str
    run: str
    state: LeaseState
    provider: str
    offer_id: str
    label: str
    max_usd_per_hour: Usd
    reserved_usd: Usd
    deadline: str
    machine: dict[str, Any] | None
    created_at: str
    updated_at: str
    proof: list[str] | None
    via: str = "direct"  # direct, skypilot


@dataclass(frozen=True)
class Batch:
    """Many runs under one approval, whose amount (USD) binds them all together."""

    batch: str
    batch_key: str
    state: str  # live, over
    at: str
    who: str
    how: str
    file: str
    amount_usd: Usd
    digest: str
    outcome: dict[str, Any] | None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state != "live"


@dataclass(frozen=True)
class Reservation:
    """What a run holds of its budget until it is settled, USD."""

    run: str
    budget: str
    at: str
    amount_usd: Usd
    settled_at: str | None


@dataclass(frozen=True)
class Throughput:
    """Work measured in a run: seconds of audio gone through in a second, on `count` of this GPU."""

    gpu: str
    count: int
    recipe: str
    method: str
    precision: str
    parameters: int
    audio_s_per_s: float
    audio_s: float  # how much audio the figure stands on
    at: str
    run: str


def run_of(row: RowMapping) -> Run:
    """A row of runs."""
    held = _columns(row, t.runs, Run.__dataclass_fields__)
    return Run(**{**held, "state": RunState(held["state"])})


def lease_of(row: RowMapping) -> Lease:
    """A row of leases."""
    held = _columns(row, t.leases, Lease.__dataclass_fields__)
    money = {name: Usd(held[name]) for name in ("max_usd_per_hour", "reserved_usd")}
    return Lease(**{**held, **money, "state": LeaseState(held["state"])})


def batch_of(row: RowMapping) -> Batch:
    """A row of batches."""
    held = _columns(row, t.batches, Batch.__dataclass_fields__)
    return Batch(**{**held, "amount_usd": Usd(held["amount_usd"])})


def reservation_of(row: RowMapping) -> Reservation:
    """A row of reservations."""
    held = _columns(row, t.reservations, Reservation.__dataclass_fields__)
    return Reservation(**{**held, "amount_usd": Usd(held["amount_usd"])})


def throughput_of(row: RowMapping) -> Throughput:
    """A row of throughputs."""
    return Throughput(**_columns(row, t.throughputs, Throughput.__dataclass_fields__))


def _columns(row: RowMapping, table: Table, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[table.c[name]] for name in names}
