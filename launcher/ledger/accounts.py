"""The ledger across runs: who holds what, what was charged for what, and the end of runs whose launcher died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from launcher.errors import ExitCode
from launcher.ledger import schema as t
from launcher.ledger.records import Lease, Reservation, Run, lease_of, reservation_of, run_of
from launcher.ledger.reservations import Reservations
from launcher.ledger.states import RUN_TERMINAL, LeaseState, RunState
from launcher.money import ZERO, Usd


@dataclass(frozen=True)
class Charged:
    """One charge (USD): of which run, at which provider, when it was recorded, and by whose word."""

    run: str
    provider: str
    at: str
    amount_usd: Usd
    source: str


class Accounts(Reservations):
    """The part of the ledger that looks at many runs."""

    def is_ours(self, run: Run) -> bool:
        """Whether this machine and home can say if the run's runner lives: by its lock."""
        return self.is_in_home or run.place == self.place

    def unfinished(self) -> list[Run]:
        """The runs that are not over, or hold an open reservation or a lease not yet released; oldest first."""
        runs = t.runs.c
        held = select(t.reservations.c.run).where(t.reservations.c.settled_at.is_(None))
        rented = select(t.leases.c.run).where(t.leases.c.state != LeaseState.RELEASED)
        alive = runs.state.not_in([str(state) for state in RUN_TERMINAL])
        query = select(t.runs).where(alive | runs.run.in_(held) | runs.run.in_(rented)).order_by(runs.created_at)
        with self.reading() as db:
            return [run_of(row) for row in db.execute(query).mappings()]

    def unreleased(self) -> list[Lease]:
        """The leases that may still bill although their release was asked for, or nobody knows of them."""
        doubtful = t.leases.c.state.in_([LeaseState.RELEASE_PENDING, LeaseState.UNKNOWN])
        with self.reading() as db:
            held = [lease_of(row) for row in db.execute(select(t.leases).where(doubtful)).mappings()]
        return [lease for lease in held if lease.max_usd_per_hour > ZERO]

    def reservations(self) -> list[Reservation]:
        """Every reservation, open and closed, oldest first."""
        with self.reading() as db:
            rows = db.execute(select(t.reservations).order_by(t.reservations.c.at)).mappings()
            return [reservation_of(row) for row in rows]

    def charges(self, run_id: str | None = None) -> list[Charged]:
        """Every charge (of one run), oldest first."""
        columns = (t.charges.c.run, t.leases.c.provider, t.charges.c.at, t.charges.c.amount_usd, t.charges.c.source)
        query = select(*columns).join(t.leases, t.leases.c.lease == t.charges.c.lease).order_by(t.charges.c.at)
        if run_id is not None:
            query = query.where(t.charges.c.run == run_id)
        with self.reading() as db:
            return [Charged(run, who, at, Usd(text), source) for run, who, at, text, source in db.execute(query)]

    def abandon(self, run_id: str, reason: str) -> bool:
        """End a run that has no machine and will not go on, and free what it holds; False when it is not so any more.

        In one transaction: a runner that began meanwhile keeps its run and its reservation.
        """
        with self.writing() as db:
            state = db.execute(select(t.runs.c.state).where(t.runs.c.run == run_id)).scalar_one()
            if state in RUN_TERMINAL or self._owes(db, run_id):
                return False
            charged = str(self._charged(db, t.charges.c.run == run_id))
            outcome: dict[str, Any] = {
                "run": run_id, "state": str(RunState.CANCELLED), "exit": int(ExitCode.INTERRUPTED), "reason": reason,
                "artifacts": [], "released": True, "usd": {"charged": charged, "reserved": str(Usd(ZERO))},
            }  # fmt: skip
            values = {
                "state": RunState.CANCELLED, "updated_at": self._now(), "reason": reason, "outcome": outcome,
                "exit_code": int(ExitCode.INTERRUPTED),
            }  # fmt: skip
            db.execute(update(t.runs).where(t.runs.c.run == run_id).values(values))
            self._note(db, f"run.{RunState.CANCELLED}", {"reason": reason}, run=run_id)
            self._close(db, run_id, "reservation.cancelled")
        return True
