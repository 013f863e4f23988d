"""A machine that goes from one run to the next: who follows whom, and the hand-over of lease and money at one stroke.

Runs of a batch that are cheaper on one machine follow one another. The first holds money for all of them until the
machine's deadline, which is set, with its watchdog, before anything is created. When it is done, what it did not use
passes to the next one together with the lease: at no moment does more count than was reserved at first, and at no
moment does nobody answer for the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from launcher.errors import StateError
from launcher.ledger import schema as t
from launcher.ledger.records import Lease, Run, lease_of, run_of
from launcher.ledger.reservations import Reservations
from launcher.ledger.states import LeaseState, RunState
from launcher.ledger.store import text_of
from launcher.money import ZERO, Usd

FOLLOWED, FOLLOWS = "run.followed", "run.follows"
_HANDED = (LeaseState.BUSY, LeaseState.DRAINED)


class HandingOver(Reservations):
    """The part of the ledger that lets runs share a machine, one after another."""

    def follow(self, run_id: str, then: Sequence[str]) -> None:
        """Let these runs have the machine of `run_id` after it, in this order."""
        with self.writing() as db:
            self._follow(db, run_id, then)

    def followers(self, run_id: str) -> list[str]:
        """The runs that are to have a run's machine after it, in order."""
        with self.reading() as db:
            return [str(run) for run in self._last(db, run_id, FOLLOWED).get("then", [])]

    def waits_for(self, run: Run) -> Run | None:
        """The run whose machine this one is to have, while it has not begun; that one may have ended meanwhile."""
        if run.state is not RunState.PLANNED:
            return None
        with self.reading() as db:
            leader = self._last(db, run.run, FOLLOWS).get("run")
            row = db.execute(select(t.runs).where(t.runs.c.run == leader)).mappings().first() if leader else None
        return None if row is None else run_of(row)

    def hand_over(self, lease: Lease, to: str, charged: Usd, source: str, at: str) -> Lease:
        """Give a lease, and what its run has not used of its reservation, to a run that follows; the lease, armed.

        `charged` (USD) is what the machine has cost its first run until `at` (ISO 8601), by `source`; from then on it
        bills to the run `to`. The first run keeps a released part of the lease, with its charge. One transaction:
        raises StateError, and changes nothing, where either run is not in a state for it.
        """
        with self.writing() as db:
            run_id = lease.run
            row = db.execute(select(t.leases).where(t.leases.c.lease == lease.lease)).mappings().one()
            held, next_run = self._reservation(db, run_id), self._state(db, to)
            approved = db.execute(select(t.approvals.c.run).where(t.approvals.c.run == to)).first()
            if (
                row["run"] != run_id or row["state"] not in _HANDED or held is None or held.settled_at
                or self._state(db, run_id) is not RunState.COLLECTED or approved is None
                or next_run not in (RunState.PLANNED, RunState.APPROVED) or self._reservation(db, to) is not None
            ):  # fmt: skip
                raise StateError(f"lease {lease.lease} cannot go from run {run_id} to {to}", fix="It is released.")
            then = [str(each) for each in self._last(db, run_id, FOLLOWED).get("then", [])]
            now, part = self._now(), f"{run_id}-{self._rng.getrandbits(32):08x}"
            kept = {
                **row, "lease": part, "state": LeaseState.RELEASED, "label": f"{row['label']}/{run_id}",
                "updated_at": now, "proof": [f"{at} handed over to run {to}"],
            }  # fmt: skip
            db.execute(insert(t.leases).values(kept))
            db.execute(insert(t.charges).values(
                lease=part, run=run_id, at=now, amount_usd=text_of(charged), source=source
            ))  # fmt: skip
            self._note(db, "charged", {"amount_usd": text_of(charged), "source": source}, run=run_id)
            spent = self._charged(db, t.charges.c.run == run_id)
            left = Usd(held.amount_usd - spent)
            owing = (t.leases.c.run == run_id) & (t.leases.c.lease != lease.lease)
            other = select(t.leases.c.lease).where(owing & (t.leases.c.state != LeaseState.RELEASED))
            if left <= ZERO or db.execute(other).first():
                raise StateError(f"run {run_id} has nothing left to hand over", fix="Its machine is released.")
            machine = dict(row["machine"] or {})
            machine["facts"] = {**(machine.get("facts") or {}), "billed_from": at, "had_before": run_id}
            db.execute(update(t.leases).where(t.leases.c.lease == lease.lease).values(
                run=to, state=LeaseState.ARMED, machine=machine, reserved_usd=text_of(left), updated_at=now
            ))  # fmt: skip
            self._note(db, "lease.handed_over", {"to": to, "part": part}, run=run_id, lease=lease.lease)
            self._close(db, run_id, "settled")
            db.execute(insert(t.reservations).values(
                run=to, budget=held.budget, at=now, amount_usd=text_of(left)
            ))  # fmt: skip
            self._note(db, "reserved", {"budget": held.budget, "amount_usd": text_of(left)}, run=to)
            db.execute(update(t.runs).where(t.runs.c.run == to).values(state=RunState.RESERVED, updated_at=now))
            self._note(db, f"run.{RunState.RESERVED}", {}, run=to)
            self._note(db, "lease.armed", {"had_before": run_id, "deadline": row["deadline"]}, run=to,
                       lease=lease.lease)  # fmt: skip
            self._follow(db, to, then[then.index(to) + 1 :] if to in then else [])
            return lease_of(db.execute(select(t.leases).where(t.leases.c.lease == lease.lease)).mappings().one())

    def _follow(self, db: Connection, run_id: str, then: Sequence[str]) -> None:
        self._note(db, FOLLOWED, {"then": list(then)}, run=run_id)
        for each in then:
            self._note(db, FOLLOWS, {"run": run_id}, run=each)

    def _state(self, db: Connection, run_id: str) -> RunState:
        return RunState(db.execute(select(t.runs.c.state).where(t.runs.c.run == run_id)).scalar_one())

    def _last(self, db: Connection, run_id: str, kind: str) -> dict[str, Any]:
        where = (t.events.c.run == run_id) & (t.events.c.kind == kind)
        found = db.execute(select(t.events.c.facts).where(where).order_by(t.events.c.seq.desc())).scalars().first()
        return dict(found or {})
