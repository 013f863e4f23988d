"""Reservations and charges: money is held under every cap that applies before anything can bill, then settled.

An open reservation counts against every day and month until it is settled, less what its run was charged already; a
charge counts from the day it was recorded (a date in the future counts now, too). So at any moment and for every cap:
charges of its period + what is held <= the cap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from launcher.clock import iso
from launcher.errors import BadInputError, RefusedError, StateError
from launcher.ledger import schema as t
from launcher.ledger.caps import BATCH, CONCURRENT, PER_DAY, PER_MONTH, PER_RUN, Caps, Standing
from launcher.ledger.records import Lease, Reservation, reservation_of
from launcher.ledger.states import RUN_TERMINAL, LeaseState, RunState
from launcher.ledger.store import Store, text_of
from launcher.money import ZERO, Usd

NOT_BEGUN = (RunState.PLANNED, RunState.APPROVED)
WORDS = {PER_RUN: "a run", PER_DAY: "a day", PER_MONTH: "a month"}


class Reservations(Store):
    """The part of the ledger that holds money."""

    def reserve(self, run_id: str, caps: Caps, amount: Usd, *, batch: str | None = None) -> None:
        """Hold a run's ceiling (USD) under every cap in one transaction, before anything is created.

        Idempotent per run. Raises RefusedError naming the cap; its `facts` say {cap, when: now | never, frees_at}:
        `never` when it cannot fit even once every run has settled, `frees_at` (ISO 8601 UTC) when it takes another
        day or month. A run at $0 is never refused.
        """
        _refuse_negative(amount)
        with self.writing() as db:
            row = db.execute(select(t.runs.c.state, t.runs.c.batch).where(t.runs.c.run == run_id)).one()
            held = self._reservation(db, run_id)
            if held is not None:
                if held.settled_at and row.state in NOT_BEGUN:
                    raise StateError(f"the reservation of run {run_id} is closed already", fix="Run the job anew.")
                return
            if row.state in RUN_TERMINAL:
                raise StateError(f"run {run_id} is over: nothing can be reserved for it", fix="Run the job anew.")
            if batch is not None and row.batch is None:
                db.execute(update(t.runs).where(t.runs.c.run == run_id).values(batch=batch))
            elif batch is not None and batch != row.batch:
                raise StateError(f"run {run_id} belongs to batch {row.batch}", fix="This is a bug: please report it.")
            if amount > ZERO:
                self._refuse_over(db, run_id, caps, amount, batch or row.batch, begins=True)
            values = {"run": run_id, "budget": caps.budget, "at": self._now(), "amount_usd": text_of(amount)}
            db.execute(insert(t.reservations).values(values))
            self._note(db, "reserved", {"budget": caps.budget, "amount_usd": text_of(amount)}, run=run_id)

    def extend(self, run_id: str, extra: Usd, caps: Caps) -> None:
        """Hold more (USD) for a run whose reservation is open, under the same caps; raises as `reserve`."""
        _refuse_negative(extra)
        with self.writing() as db:
            held = self._reservation(db, run_id)
            if held is None or held.settled_at:
                raise StateError(f"run {run_id} holds no open reservation", fix="This is a bug: please report it.")
            if extra == ZERO:
                return
            batch = db.execute(select(t.runs.c.batch).where(t.runs.c.run == run_id)).scalar()
            self._refuse_over(db, run_id, caps, extra, batch, begins=held.amount_usd == ZERO)
            more = {"amount_usd": text_of(held.amount_usd + extra)}
            db.execute(update(t.reservations).where(t.reservations.c.run == run_id).values(more))
            self._note(db, "extended", {"extra_usd": text_of(extra), **more}, run=run_id)

    def cancel_reservation(self, run_id: str) -> None:
        """Free what a run holds that never rented anything (idempotent); raises StateError when it did."""
        with self.writing() as db:
            if db.execute(select(t.leases.c.lease).where(t.leases.c.run == run_id)).first():
                raise StateError(f"run {run_id} has rented: settle it", fix="This is a bug: please report it.")
            self._close(db, run_id, "reservation.cancelled")

    def settle(self, run_id: str) -> Usd:
        """Close a run's reservation; returns the sum of its charges (USD). Idempotent.

        While a lease of it is not released, or released but not charged yet, the reservation stays open.
        """
        with self.writing() as db:
            if not self._owes(db, run_id):
                self._close(db, run_id, "settled")
            return self._charged(db, t.charges.c.run == run_id)

    def charge(self, lease: Lease, amount: Usd, source: str) -> Usd:
        """Record what a lease cost, in full, and by whose word: free, rate x time, invoice; what stands (USD).

        Idempotent: what was recorded first stands.
        """
        _refuse_negative(amount)
        with self.writing() as db:
            stands = db.execute(select(t.charges.c.amount_usd).where(t.charges.c.lease == lease.lease)).scalar()
            if stands is not None:
                return Usd(stands)
            values = {"lease": lease.lease, "run": lease.run, "at": self._now(), "amount_usd": text_of(amount)}
            db.execute(insert(t.charges).values(**values, source=source))
            self._note(db, "charged", {"amount_usd": text_of(amount), "source": source}, run=lease.run)
        return amount

    def spent(self, run_id: str) -> Usd:
        """The sum of a run's charges so far."""
        with self.reading() as db:
            return self._charged(db, t.charges.c.run == run_id)

    def reservation(self, run_id: str) -> Reservation | None:
        """What a run holds, or held."""
        with self.reading() as db:
            return self._reservation(db, run_id)

    def remaining(self, caps: Caps) -> dict[str, Usd]:
        """What a new run could still reserve under each cap: {per_run_usd, per_day_usd, per_month_usd}."""
        return {standing.cap: standing.left for standing in self.standings(caps)}

    def standings(self, caps: Caps) -> list[Standing]:
        """How each cap stands now for a new run: per run, per day, per month."""
        with self.reading() as db:
            return self._standings(db, None, caps, None)

    def holders(self, budget: str) -> list[str]:
        """The runs that hold money under a budget, oldest first: what `concurrent_runs` counts."""
        with self.reading() as db:
            return self._holders(db, budget)

    def owes(self, run_id: str) -> bool:
        """Whether a lease of the run may still bill, or is released and not charged yet."""
        with self.reading() as db:
            return self._owes(db, run_id)

    # -- how the caps stand -------------------------------------------------------------------------------

    def _refuse_over(self, db: Connection, run_id: str, caps: Caps, asked: Usd, batch: str | None, *,
                     begins: bool) -> None:  # fmt: skip
        """Raise RefusedError when a cap does not hold: the one that never will, if any."""
        over = [each for each in self._standings(db, run_id, caps, batch) if not each.holds(asked)]
        for each in sorted(over, key=lambda each: each.ever_holds(asked)):
            raise _over(each, caps, asked, batch)
        others = self._holders(db, caps.budget) if begins else []
        if begins and len(others) >= caps.concurrent_runs:
            raise _too_many(others, caps, asked)

    def _standings(self, db: Connection, run_id: str | None, caps: Caps, batch: str | None) -> list[Standing]:
        now, mine = self._clock.now(), t.charges.c.run == run_id
        day, month = caps.day(now), caps.month(now)
        under = t.reservations.c.budget == caps.budget
        held = self._held(db, under)
        charged = self._charges_since(db, under, iso(month.starts))
        today = sum((amount for at, amount in charged if at >= iso(day.starts)), ZERO)
        of_month = sum((amount for _, amount in charged), ZERO)
        reserved = sum(held.values(), ZERO)
        own = (self._charged(db, mine), held.get(run_id, ZERO)) if run_id else (ZERO, ZERO)
        standings = [
            Standing(PER_RUN, caps.per_run_usd, *own),
            Standing(PER_DAY, caps.per_day_usd, today, reserved, day),
            Standing(PER_MONTH, caps.per_month_usd, of_month, reserved, month),
        ]
        if batch is not None:
            standings.append(self._batch_standing(db, batch))
        return standings

    def _batch_standing(self, db: Connection, batch: str) -> Standing:
        """How the amount of a batch stands: all its runs, under whatever budget, whatever day."""
        row = db.execute(select(t.batches.c.amount_usd, t.batches.c.state).where(t.batches.c.batch == batch)).first()
        if row is None or row.state != "live":
            raise StateError(f"batch {batch} is over: nothing can be reserved for it", fix="Start the batch anew.")
        of_batch = t.reservations.c.run.in_(select(t.runs.c.run).where(t.runs.c.batch == batch))
        charged = self._charged(db, t.charges.c.run.in_(select(t.runs.c.run).where(t.runs.c.batch == batch)))
        return Standing(BATCH, Usd(row.amount_usd), charged, sum(self._held(db, of_batch).values(), ZERO))

    def _held(self, db: Connection, where: ColumnElement[bool]) -> dict[str, Usd]:
        """What each open reservation still holds: its amount less what its run was charged, never below 0."""
        held, charges = t.reservations.c, t.charges.c
        open_ones = where & held.settled_at.is_(None)
        amounts = {run: Usd(text) for run, text in db.execute(select(held.run, held.amount_usd).where(open_ones))}
        drawn = select(charges.run, charges.amount_usd).join(t.reservations, held.run == charges.run).where(open_ones)
        for run, text in db.execute(drawn):
            amounts[run] = amounts[run] - Usd(text)
        return {run: Usd(max(ZERO, amount)) for run, amount in amounts.items()}

    def _holders(self, db: Connection, budget: str) -> list[str]:
        held = t.reservations.c
        where = (held.budget == budget) & held.settled_at.is_(None)
        rows = db.execute(select(held.run, held.amount_usd).where(where).order_by(held.at, held.run))
        return [run for run, text in rows if Usd(text) > ZERO]

    def _charges_since(self, db: Connection, where: ColumnElement[bool], start: str) -> list[tuple[str, Usd]]:
        charges = t.charges.c
        query = select(charges.at, charges.amount_usd).join(t.reservations, t.reservations.c.run == charges.run)
        return [(at, Usd(text)) for at, text in db.execute(query.where(where & (charges.at >= start)))]

    def _charged(self, db: Connection, where: ColumnElement[bool]) -> Usd:
        return _sum(db.execute(select(t.charges.c.amount_usd).where(where)).scalars())

    def _reservation(self, db: Connection, run_id: str) -> Reservation | None:
        row = db.execute(select(t.reservations).where(t.reservations.c.run == run_id)).mappings().first()
        return None if row is None else reservation_of(row)

    def _owes(self, db: Connection, run_id: str) -> bool:
        leases, charged = t.leases.c, select(t.charges.c.lease).where(t.charges.c.run == run_id)
        owing = (leases.state != LeaseState.RELEASED) | leases.lease.not_in(charged)
        return db.execute(select(leases.lease).where((leases.run == run_id) & owing)).first() is not None

    def _close(self, db: Connection, run_id: str, kind: str) -> None:
        held = t.reservations.c
        open_one = (held.run == run_id) & held.settled_at.is_(None)
        if db.execute(update(t.reservations).where(open_one).values(settled_at=self._now())).rowcount:
            charged = text_of(self._charged(db, t.charges.c.run == run_id))
            self._note(db, kind, {"charged_usd": charged}, run=run_id)


def _refuse_negative(amount: Usd) -> None:
    if amount < ZERO:
        raise BadInputError(f"an amount of dollars cannot be negative: ${amount}", fix="Ask for $0 or more.")


def _over(cap: Standing, caps: Caps, asked: Usd, batch: str | None) -> RefusedError:
    whose = f"batch {batch}: its amount" if cap.cap == BATCH else f"budget {caps.budget}: {cap.cap}"
    raising = "Approve more in a new batch" if cap.cap == BATCH else f"raise {cap.cap} in budgets.yaml"
    ever = cap.ever_holds(asked)
    frees_at = cap.period.ends if ever and cap.period and cap.charged + asked > cap.limit else None
    if frees_at is not None:
        local = frees_at.astimezone(caps.zone)
        fix = f"Wait until {local:%Y-%m-%d %H:%M} ({caps.time_zone}), or {raising}."
    elif ever:
        fix = f"Wait until a run settles (launcher status), or {raising}."
    else:
        fix = f"{raising[0].upper()}{raising[1:]}, or make the run cheaper."
    error = RefusedError(
        f"{whose} is ${cap.limit}, of which ${cap.charged} is charged and ${cap.reserved} reserved; "
        f"${asked} is asked.", fix=fix,
    )  # fmt: skip
    error.facts = {
        **_facts(caps, cap.cap, "now" if ever else "never", asked), "limit_usd": str(cap.limit),
        "charged_usd": str(cap.charged), "reserved_usd": str(cap.reserved),
        "frees_at": iso(frees_at) if frees_at else None,
    }  # fmt: skip
    return error


def _too_many(others: list[str], caps: Caps, asked: Usd) -> RefusedError:
    limit, ever = caps.concurrent_runs, caps.concurrent_runs > 0
    error = RefusedError(
        f"budget {caps.budget}: {CONCURRENT} is {limit}, and {len(others)} hold money now"
        f"{': ' if others else ''}{', '.join(others[:3])}{' …' if len(others) > 3 else ''}; ${asked} is asked.",
        fix=f"Wait until one settles (launcher status), or raise {CONCURRENT} in budgets.yaml.",
    )
    error.facts = {**_facts(caps, CONCURRENT, "now" if ever else "never", asked), "limit": limit, "runs": others}
    return error


def _facts(caps: Caps, cap: str, when: str, asked: Usd) -> Mapping[str, Any]:
    return {"budget": caps.budget, "cap": cap, "when": when, "asked_usd": str(asked)}


def _sum(texts: Iterable[str]) -> Usd:
    return sum((Usd(text) for text in texts), ZERO)
