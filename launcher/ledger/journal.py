"""The journal: every intent, state and dollar, committed before the effect it announces."""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, RowMapping, Table, create_engine, event, insert, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from launcher.clock import Clock, SystemClock, iso
from launcher.errors import BadInputError, LedgerError, StateError
from launcher.home import Home
from launcher.ledger import schema as t
from launcher.ledger.states import LEASE_MOVES, RUN_MOVES, RUN_TERMINAL, LeaseState, RunState
from launcher.money import ZERO, Usd


@dataclass(frozen=True)
class Run:
    """One row of the runs table."""

    run: str
    state: RunState
    reason: str | None
    exit_code: int | None
    created_at: str
    updated_at: str
    plan: dict[str, Any]
    digest: str
    outcome: dict[str, Any] | None

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


class Ledger:
    """Opens the database and is the only thing that writes to it; one short transaction a call."""

    def __init__(self, engine: Engine, clock: Clock, rng: random.Random) -> None:
        self._engine, self._clock, self._rng = engine, clock, rng

    @classmethod
    def open(cls, home: Home, clock: Clock | None = None, rng: random.Random | None = None) -> Ledger:
        """Open (or create) the ledger; raises StateError when it is damaged, newer, or out of disk."""
        home.ensure()
        url = home.ledger_url
        file = URL.create("sqlite", database=_shown(url))  # made of parts: a folder's name may hold a ?
        engine = create_engine(url if os.environ.get("LAUNCHER_LEDGER") else file)
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine)
        ledger = cls(engine, clock or SystemClock(), rng or random.SystemRandom())
        with ledger._write() as db:
            t.metadata.create_all(db)
            held = db.execute(select(t.meta.c.value).where(t.meta.c.key == "schema")).scalar()
            if held is None:
                db.execute(insert(t.meta).values(key="schema", value=str(t.SCHEMA_VERSION)))
            elif int(held) > t.SCHEMA_VERSION:
                raise StateError(
                    f"this ledger was written by a newer launcher (schema {held}, here {t.SCHEMA_VERSION}).",
                    file=_shown(url),
                    fix="Upgrade parakeet-launcher, or point LAUNCHER_HOME elsewhere.",
                )
        if engine.dialect.name == "sqlite" and engine.url.database:
            Path(engine.url.database).chmod(0o600)
        return ledger

    # -- runs ---------------------------------------------------------------------------------------------

    def create_run(self, run_key: str, plan: dict[str, Any], digest: str) -> tuple[Run, bool]:
        """A new run in state planned, or the live run that already has this key: (run, whether it is new)."""
        now = iso(self._clock.now())
        try:
            with self._write() as db:
                run_id = f"{self._rng.getrandbits(24):06x}"
                values = {
                    "run": run_id, "run_key": run_key, "state": RunState.PLANNED, "created_at": now,
                    "updated_at": now, "owner": owner(), "plan": plan, "digest": digest,
                }  # fmt: skip
                db.execute(insert(t.runs).values(values))
                self._note(db, "run.planned", {"digest": digest}, run=run_id)
        except _Conflict:
            with self._read() as db:
                live = t.runs.c.state.not_in([str(s) for s in RUN_TERMINAL])
                row = db.execute(select(t.runs).where(t.runs.c.run_key == run_key, live)).mappings().first()
            if row is None:  # a run id met by chance: one in 16 million
                return self.create_run(run_key, plan, digest)
            return _run(row), False
        return self.run(run_id), True

    def run(self, name: str) -> Run:
        """The run with this id or unique beginning of an id; raises BadInputError."""
        with self._read() as db:
            rows = db.execute(select(t.runs).where(t.runs.c.run.startswith(name, autoescape=True))).mappings().all()
        exact = [row for row in rows if row["run"] == name] or rows
        if len(exact) != 1:
            what = "matches several runs" if exact else "names no run"
            raise BadInputError(f"{name!r} {what}.", key="RUN", value=name, fix="List them with: launcher status")
        return _run(exact[0])

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        with self._read() as db:
            rows = db.execute(select(t.runs).order_by(t.runs.c.created_at.desc())).mappings().all()
        return [_run(row) for row in rows]

    def move_run(self, run_id: str, to: RunState, **facts: Any) -> None:
        """Take a run to its next state; `reason`, `exit_code` and `outcome` are kept on the run."""
        with self._write() as db:
            held = RunState(db.execute(select(t.runs.c.state).where(t.runs.c.run == run_id)).scalar_one())
            if to not in RUN_MOVES[held]:
                raise StateError(
                    f"run {run_id} cannot go from {held} to {to}", fix="This is a bug: please report it."
                )
            kept = {k: facts[k] for k in ("reason", "exit_code", "outcome") if k in facts}
            now = iso(self._clock.now())
            db.execute(update(t.runs).where(t.runs.c.run == run_id).values(state=to, updated_at=now, **kept))
            self._note(db, f"run.{to}", {k: v for k, v in facts.items() if k != "outcome"}, run=run_id)

    def advance_run(self, run_id: str, held: RunState, to: RunState) -> None:
        """Take a run from one state to the next, unless somebody else has done it already."""
        with self._write() as db:
            now = iso(self._clock.now())
            still = (t.runs.c.run == run_id) & (t.runs.c.state == held)
            if db.execute(update(t.runs).where(still).values(state=to, updated_at=now)).rowcount:
                self._note(db, f"run.{to}", {}, run=run_id)

    def set_outcome(self, run_id: str, outcome: dict[str, Any]) -> None:
        """Keep what `run --json` prints."""
        with self._write() as db:
            db.execute(update(t.runs).where(t.runs.c.run == run_id).values(outcome=outcome))

    def approve(self, run_id: str, how: str, ceiling: Usd, allowed: dict[str, Any], digest: str) -> None:
        """Record who approved which ceiling and set, at which plan (idempotent)."""
        with self._write() as db:
            if db.execute(select(t.approvals.c.run).where(t.approvals.c.run == run_id)).first() is None:
                now = iso(self._clock.now())
                values = {
                    "run": run_id, "at": now, "who": owner(), "how": how, "ceiling_usd": _text(ceiling),
                    "allowed": allowed, "digest": digest,
                }  # fmt: skip
                db.execute(insert(t.approvals).values(values))
                self._note(db, "approval", {"how": how, "ceiling_usd": _text(ceiling)}, run=run_id)

    def reserve(self, run_id: str, budget: str, amount: Usd) -> None:
        """Hold the ceiling against a budget before anything is created (idempotent)."""
        with self._write() as db:
            if db.execute(select(t.reservations.c.run).where(t.reservations.c.run == run_id)).first() is None:
                now = iso(self._clock.now())
                db.execute(insert(t.reservations).values(run=run_id, budget=budget, at=now, amount_usd=_text(amount)))
                self._note(db, "reserved", {"budget": budget, "amount_usd": _text(amount)}, run=run_id)

    def spent(self, run_id: str) -> Usd:
        """The sum of a run's charges so far."""
        with self._read() as db:
            amounts = db.execute(select(t.charges.c.amount_usd).where(t.charges.c.run == run_id)).scalars().all()
        return sum((Usd(amount) for amount in amounts), ZERO)

    def settle(self, run_id: str) -> Usd:
        """Close a run's reservation; returns the sum of its charges (USD). Idempotent."""
        with self._write() as db:
            now = iso(self._clock.now())
            held = t.reservations.c
            open_one = (held.run == run_id) & held.settled_at.is_(None)
            db.execute(update(t.reservations).where(open_one).values(settled_at=now))
        return self.spent(run_id)

    # -- leases -------------------------------------------------------------------------------------------

    def intend_lease(self, run_id: str, *, provider: str, account: str, offer_id: str, max_usd_per_hour: Usd,
                     reserved: Usd, deadline: str) -> Lease:  # fmt: skip
        """Invariant 1: commit the intent, with a fresh label, before any call that can start billing."""
        now = iso(self._clock.now())
        lease_id = f"{run_id}-{self._rng.getrandbits(32):08x}"
        ends = deadline.replace("-", "").replace(":", "")[:15]
        values = {
            "lease": lease_id, "run": run_id, "state": LeaseState.INTENDED, "provider": provider,
            "account": account, "offer_id": offer_id, "label": f"pl-{_slug(owner())}-{lease_id}-{ends}",
            "max_usd_per_hour": _text(max_usd_per_hour), "reserved_usd": _text(reserved), "deadline": deadline,
            "created_at": now, "updated_at": now,
        }  # fmt: skip
        with self._write() as db:
            db.execute(insert(t.leases).values(values))
            self._note(db, "lease.intended", {"label": values["label"]}, run=run_id, lease=lease_id)
        return self.leases(run_id)[-1]

    def move_lease(self, lease_id: str, to: LeaseState, **facts: Any) -> Lease:
        """Take a lease to its next state; `machine` and `proof` are kept on the lease."""
        with self._write() as db:
            row = db.execute(select(t.leases).where(t.leases.c.lease == lease_id)).mappings().one()
            held = LeaseState(row["state"])
            if to not in LEASE_MOVES[held]:
                raise StateError(
                    f"lease {lease_id} cannot go from {held} to {to}", fix="This is a bug: please report it."
                )
            kept = {k: facts[k] for k in ("machine", "proof") if k in facts}
            now = iso(self._clock.now())
            db.execute(update(t.leases).where(t.leases.c.lease == lease_id).values(state=to, updated_at=now, **kept))
            self._note(db, f"lease.{to}", facts, run=row["run"], lease=lease_id)
            changed = db.execute(select(t.leases).where(t.leases.c.lease == lease_id)).mappings().one()
        return _lease(changed)

    def leases(self, run_id: str | None = None) -> list[Lease]:
        """The leases of a run (or all), oldest first."""
        query = select(t.leases).order_by(t.leases.c.created_at)
        if run_id is not None:
            query = query.where(t.leases.c.run == run_id)
        with self._read() as db:
            return [_lease(row) for row in db.execute(query).mappings().all()]

    def charge(self, lease: Lease, amount: Usd, source: str) -> None:
        """Record what a lease cost and by whose word (idempotent)."""
        with self._write() as db:
            if db.execute(select(t.charges.c.lease).where(t.charges.c.lease == lease.lease)).first() is None:
                now = iso(self._clock.now())
                values = {"lease": lease.lease, "run": lease.run, "at": now, "amount_usd": _text(amount)}
                db.execute(insert(t.charges).values(**values, source=source))
                self._note(db, "charged", {"amount_usd": _text(amount), "source": source}, run=lease.run)

    # -- steps and events ---------------------------------------------------------------------------------

    def step(self, run_id: str, step: str) -> dict[str, Any] | None:
        """A finished step's result, or None when the step has not finished."""
        with self._read() as db:
            where = (t.steps.c.run == run_id) & (t.steps.c.step == step)
            row = db.execute(select(t.steps).where(where)).mappings().first()
        return dict(row["result"] or {}) if row and row["state"] == "done" else None

    def set_step(self, run_id: str, step: str, state: str, result: dict[str, Any] | None = None) -> None:
        """Record that a step was started, or is done with this result."""
        with self._write() as db:
            where = (t.steps.c.run == run_id) & (t.steps.c.step == step)
            values = {"state": state, "result": result, "updated_at": iso(self._clock.now())}
            if db.execute(update(t.steps).where(where).values(values)).rowcount == 0:
                db.execute(insert(t.steps).values(run=run_id, step=step, **values))
            self._note(db, f"step.{state}", {"step": step}, run=run_id)

    def journal(self, kind: str, facts: Mapping[str, Any], run: str | None = None, lease: str | None = None) -> None:
        """Append one fact."""
        with self._write() as db:
            self._note(db, kind, facts, run=run, lease=lease)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """A run's journal, oldest first: {at, kind, lease, facts}."""
        with self._read() as db:
            rows = db.execute(select(t.events).where(t.events.c.run == run_id).order_by(t.events.c.seq)).mappings()
            return [{"at": r["at"], "kind": r["kind"], "lease": r["lease"], "facts": r["facts"]} for r in rows]

    def _note(self, db: Connection, kind: str, facts: Mapping[str, Any], run: str | None = None,
              lease: str | None = None) -> None:  # fmt: skip
        plain = json.loads(json.dumps(dict(facts), default=str))
        values = {"at": iso(self._clock.now()), "run": run, "lease": lease, "kind": kind, "facts": plain}
        db.execute(insert(t.events).values(values))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with _readable_errors(self._engine), self._engine.begin() as db:
            yield db

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _readable_errors(self._engine), self._engine.connect() as db:
            yield db.execution_options(launcher_read=True)


class _Conflict(Exception):  # noqa: N818
    """A row that must be unique is there already."""


@contextmanager
def _readable_errors(engine: Engine) -> Iterator[None]:
    shown = _shown(engine.url.render_as_string(hide_password=True))
    try:
        yield
    except IntegrityError as error:
        raise _Conflict from error
    except (OperationalError, DatabaseError) as error:
        problem = str(error.orig).splitlines()[0]
        mend = "Free some disk, or restore the file from a copy."
        if "locked" in problem:
            mend = "Another process holds it: end that one, or try again."
        raise LedgerError(
            f"the ledger cannot be used: {problem}.", file=shown, fix=f"Nothing was rented. {mend}"
        ) from error


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None  # SQLAlchemy begins transactions below; the driver must not
        cursor = dbapi.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(db: Connection) -> None:
        # Take the write lock at once: two launchers that both read, then both write, must not both win.
        reads = db.get_execution_options().get("launcher_read", False)
        db.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def owner() -> str:
    """Who acts: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())[:24].strip("-")


def _text(amount: Usd) -> str:
    return f"{amount:f}"


def _shown(url: str) -> str:
    return url.removeprefix("sqlite:///")


def _columns(row: RowMapping, table: Table, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[table.c[name]] for name in names}


def _run(row: RowMapping) -> Run:
    held = _columns(row, t.runs, Run.__dataclass_fields__)
    return Run(**{**held, "state": RunState(held["state"])})


def _lease(row: RowMapping) -> Lease:
    held = _columns(row, t.leases, Lease.__dataclass_fields__)
    money = {name: Usd(held[name]) for name in ("max_usd_per_hour", "reserved_usd")}
    return Lease(**{**held, **money, "state": LeaseState(held["state"])})
