"""The journal: every intent, state and dollar, committed before the effect it announces."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from launcher.clock import Clock, SystemClock, iso, parse_iso
from launcher.errors import BadInputError, StateError
from launcher.home import Home
from launcher.ledger import schema as t
from launcher.ledger.accounts import Accounts
from launcher.ledger.batches import Batches
from launcher.ledger.database import engine_of, shown
from launcher.ledger.handing import HandingOver
from launcher.ledger.opening import bring_up_to_date
from launcher.ledger.records import Lease, Run, lease_of, run_of
from launcher.ledger.states import LEASE_MOVES, RUN_MOVES, RUN_TERMINAL, LeaseState, RunState
from launcher.ledger.store import Conflict, owner, slug, text_of
from launcher.money import Usd

MOST_SKEW, MOST_BEHIND = timedelta(minutes=10), timedelta(hours=1)
RECENT = 200  # events that a clock is compared with


class Ledger(Accounts, Batches, HandingOver):
    """Opens the database and is the only thing that writes to it; one short transaction a call."""

    @classmethod
    def open(cls, home: Home, clock: Clock | None = None, rng: random.Random | None = None) -> Ledger:
        """Open the ledger, or create it, or take it to the present schema; raises StateError when it cannot be."""
        home.ensure()
        engine = engine_of(home)
        ledger = cls(engine, clock or SystemClock(), rng or random.SystemRandom(), home)
        bring_up_to_date(ledger)
        return ledger

    def refuse_clock_skew(self) -> None:
        """Raise StateError where this clock is far from PostgreSQL's, or behind a local ledger's newest entry.

        Deadlines, days and months stand on the clock: nothing is rented by a wrong one.
        """
        now = self._clock.now()
        with self.reading() as db:
            if self.is_shared:
                theirs = db.execute(select(func.clock_timestamp())).scalar_one()
                wrong, whose = abs(theirs - now) > MOST_SKEW, "the ledger's database"
            else:
                latest = select(t.events.c.at).order_by(t.events.c.seq.desc()).limit(RECENT)
                theirs = max((parse_iso(at) for at in db.execute(latest).scalars()), default=now)
                wrong, whose = theirs - now > MOST_BEHIND, "the ledger's newest entry"
        if wrong:
            raise StateError(
                f"this machine's clock says {iso(now)}, {whose} {iso(theirs)}.", file=shown(self._engine.url),
                fix="Nothing was rented. Set the clock: deadlines and budgets stand on it.",
            )  # fmt: skip

    # -- runs ---------------------------------------------------------------------------------------------

    def create_run(self, run_key: str, plan: dict[str, Any], digest: str, *,
                   approval: Mapping[str, Any] | None = None, batch: str | None = None,
                   item: int | None = None) -> tuple[Run, bool]:  # fmt: skip
        """A new run in state planned, or the live run that already has this key: (run, whether it is new).

        `approval` is {how, ceiling_usd, allowed, digest}, recorded with the run or not at all. `batch` and `item` say
        which job of which batch it is.
        """
        now = self._now()
        try:
            with self.writing() as db:
                run_id = f"{self._rng.getrandbits(24):06x}"
                values = {
                    "run": run_id, "run_key": run_key, "state": RunState.PLANNED, "created_at": now,
                    "updated_at": now, "owner": owner(), "plan": plan, "digest": digest,
                    "batch": batch, "item": item, "place": self.place,
                }  # fmt: skip
                db.execute(insert(t.runs).values(values))
                self._note(db, "run.planned", {"digest": digest}, run=run_id)
                if approval is not None:
                    self._approve(db, run_id, approval)
        except Conflict:
            held = self.live_run(run_key)
            if held is None:  # a run id met by chance: one in 16 million
                return self.create_run(run_key, plan, digest, approval=approval, batch=batch, item=item)
            return held, False
        return self.run(run_id), True

    def run(self, name: str) -> Run:
        """The run with this id or unique beginning of an id; raises BadInputError."""
        with self.reading() as db:
            rows = db.execute(select(t.runs).where(t.runs.c.run.startswith(name, autoescape=True))).mappings().all()
        exact = [row for row in rows if row["run"] == name] or rows
        if len(exact) != 1:
            what = "matches several runs" if exact else "names no run"
            raise BadInputError(f"{name!r} {what}.", key="RUN", value=name, fix="List them with: launcher status")
        return run_of(exact[0])

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        with self.reading() as db:
            rows = db.execute(select(t.runs).order_by(t.runs.c.created_at.desc())).mappings().all()
        return [run_of(row) for row in rows]

    def move_run(self, run_id: str, to: RunState, **facts: Any) -> None:
        """Take a run to its next state; `reason`, `exit_code` and `outcome` are kept on the run."""
        with self.writing() as db:
            held = RunState(db.execute(select(t.runs.c.state).where(t.runs.c.run == run_id)).scalar_one())
            if to not in RUN_MOVES[held]:
                raise StateError(
                    f"run {run_id} cannot go from {held} to {to}", fix="This is a bug: please report it."
                )
            kept = {k: facts[k] for k in ("reason", "exit_code", "outcome") if k in facts}
            now = self._now()
            db.execute(update(t.runs).where(t.runs.c.run == run_id).values(state=to, updated_at=now, **kept))
            self._note(db, f"run.{to}", {k: v for k, v in facts.items() if k != "outcome"}, run=run_id)

    def advance_run(self, run_id: str, held: RunState, to: RunState) -> None:
        """Take a run from one state to the next, unless somebody else has done it already."""
        with self.writing() as db:
            now = self._now()
            still = (t.runs.c.run == run_id) & (t.runs.c.state == held)
            if db.execute(update(t.runs).where(still).values(state=to, updated_at=now)).rowcount:
                self._note(db, f"run.{to}", {}, run=run_id)

    def set_outcome(self, run_id: str, outcome: dict[str, Any]) -> None:
        """Keep what `run --json` prints."""
        with self.writing() as db:
            db.execute(update(t.runs).where(t.runs.c.run == run_id).values(outcome=outcome))

    def live_run(self, run_key: str) -> Run | None:
        """The run with this key that is not over, if there is one."""
        live = t.runs.c.state.not_in([str(state) for state in RUN_TERMINAL])
        with self.reading() as db:
            row = db.execute(select(t.runs).where(t.runs.c.run_key == run_key, live)).mappings().first()
        return None if row is None else run_of(row)

    def approval(self, run_id: str) -> dict[str, Any] | None:
        """Who approved a run, when, how, which ceiling and set: {at, who, how, ceiling_usd, allowed, digest}."""
        with self.reading() as db:
            row = db.execute(select(t.approvals).where(t.approvals.c.run == run_id)).mappings().first()
        return None if row is None else dict(row)

    def approve(self, run_id: str, how: str, ceiling: Usd, allowed: dict[str, Any], digest: str) -> None:
        """Record who approved which ceiling and set, at which plan (idempotent)."""
        with self.writing() as db:
            if db.execute(select(t.approvals.c.run).where(t.approvals.c.run == run_id)).first() is None:
                given = {"how": how, "ceiling_usd": ceiling, "allowed": allowed, "digest": digest}
                self._approve(db, run_id, given)

    def _approve(self, db: Connection, run_id: str, given: Mapping[str, Any]) -> None:
        ceiling = text_of(given["ceiling_usd"])
        values = {**given, "run": run_id, "at": self._now(), "who": owner(), "ceiling_usd": ceiling}
        db.execute(insert(t.approvals).values(values))
        self._note(db, "approval", {"how": given["how"], "ceiling_usd": ceiling}, run=run_id)

    # -- leases -------------------------------------------------------------------------------------------

    def intend_lease(self, run_id: str, *, provider: str, account: str, offer_id: str, max_usd_per_hour: Usd,
                     reserved: Usd, deadline: str, label_ends: str = "", via: str = "direct") -> Lease:  # fmt: skip
        """Invariant 1: commit the intent, with a fresh label, before any call that can start billing.

        `deadline` is by our own clock, `label_ends` the same moment by the provider's, where that is known.
        """
        now = self._now()
        lease_id = f"{run_id}-{self._rng.getrandbits(32):08x}"
        ends = (label_ends or deadline).replace("-", "").replace(":", "")[:15]
        values = {
            "lease": lease_id, "run": run_id, "state": LeaseState.INTENDED, "provider": provider,
            "account": account, "offer_id": offer_id, "label": f"pl-{slug(owner())}-{lease_id}-{ends}",
            "max_usd_per_hour": text_of(max_usd_per_hour), "reserved_usd": text_of(reserved), "deadline": deadline,
            "created_at": now, "updated_at": now, "via": via,
        }  # fmt: skip
        with self.writing() as db:
            db.execute(insert(t.leases).values(values))
            self._note(db, "lease.intended", {"label": values["label"]}, run=run_id, lease=lease_id)
            return lease_of(db.execute(select(t.leases).where(t.leases.c.lease == lease_id)).mappings().one())

    def move_lease(self, lease_id: str, to: LeaseState, **facts: Any) -> Lease:
        """Take a lease to its next state; `machine` and `proof` are kept on the lease."""
        with self.writing() as db:
            row = db.execute(select(t.leases).where(t.leases.c.lease == lease_id)).mappings().one()
            held = LeaseState(row["state"])
            if to not in LEASE_MOVES[held]:
                raise StateError(
                    f"lease {lease_id} cannot go from {held} to {to}", fix="This is a bug: please report it."
                )
            kept = {k: facts[k] for k in ("machine", "proof") if k in facts}
            now = self._now()
            db.execute(update(t.leases).where(t.leases.c.lease == lease_id).values(state=to, updated_at=now, **kept))
            self._note(db, f"lease.{to}", facts, run=row["run"], lease=lease_id)
            changed = db.execute(select(t.leases).where(t.leases.c.lease == lease_id)).mappings().one()
        return lease_of(changed)

    def tell_lease(self, lease_id: str, machine: Mapping[str, Any]) -> Lease:
        """Keep what became known of a lease's machine, whatever state the lease is in."""
        with self.writing() as db:
            db.execute(update(t.leases).where(t.leases.c.lease == lease_id).values(machine=dict(machine)))
            changed = db.execute(select(t.leases).where(t.leases.c.lease == lease_id)).mappings().one()
            self._note(db, "lease.machine", dict(machine), run=changed["run"], lease=lease_id)
        return lease_of(changed)

    def leases(self, run_id: str | None = None) -> list[Lease]:
        """The leases of a run (or all), oldest first."""
        query = select(t.leases).order_by(t.leases.c.created_at)
        if run_id is not None:
            query = query.where(t.leases.c.run == run_id)
        with self.reading() as db:
            return [lease_of(row) for row in db.execute(query).mappings().all()]

    # -- steps and events ---------------------------------------------------------------------------------

    def step(self, run_id: str, step: str) -> dict[str, Any] | None:
        """A finished step's result, or None when the step has not finished."""
        with self.reading() as db:
            where = (t.steps.c.run == run_id) & (t.steps.c.step == step)
            row = db.execute(select(t.steps).where(where)).mappings().first()
        return dict(row["result"] or {}) if row and row["state"] == "done" else None

    def set_step(self, run_id: str, step: str, state: str, result: dict[str, Any] | None = None) -> None:
        """Record that a step was started, or is done with this result."""
        with self.writing() as db:
            where = (t.steps.c.run == run_id) & (t.steps.c.step == step)
            values = {"state": state, "result": result, "updated_at": self._now()}
            if db.execute(update(t.steps).where(where).values(values)).rowcount == 0:
                db.execute(insert(t.steps).values(run=run_id, step=step, **values))
            self._note(db, f"step.{state}", {"step": step}, run=run_id)

    def journal(self, kind: str, facts: Mapping[str, Any], run: str | None = None, lease: str | None = None) -> None:
        """Append one fact."""
        with self.writing() as db:
            self._note(db, kind, facts, run=run, lease=lease)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """A run's journal, oldest first: {at, kind, lease, facts}."""
        with self.reading() as db:
            rows = db.execute(select(t.events).where(t.events.c.run == run_id).order_by(t.events.c.seq)).mappings()
            return [{"at": r["at"], "kind": r["kind"], "lease": r["lease"], "facts": r["facts"]} for r in rows]
