"""The ledger's database: one short transaction a call, one writer at a time, every fault in one clear line."""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from launcher.clock import Clock, iso
from launcher.errors import LedgerError
from launcher.ledger import schema as t
from launcher.money import Usd


class Conflict(Exception):  # noqa: N818
    """A row that must be unique is there already."""


class Store:
    """An engine with the two ways to use it. What is read inside a write is true until it commits."""

    def __init__(self, engine: Engine, clock: Clock, rng: random.Random) -> None:
        self._engine, self._clock, self._rng = engine, clock, rng

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with readable_errors(self._engine), self._engine.begin() as db:
            yield db

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with readable_errors(self._engine), self._engine.connect() as db:
            yield db.execution_options(launcher_read=True)

    def _now(self) -> str:
        return iso(self._clock.now())

    def _note(self, db: Connection, kind: str, facts: Mapping[str, Any], run: str | None = None,
              lease: str | None = None) -> None:  # fmt: skip
        plain = json.loads(json.dumps(dict(facts), default=str))
        values = {"at": self._now(), "run": run, "lease": lease, "kind": kind, "facts": plain}
        db.execute(insert(t.events).values(values))


@contextmanager
def readable_errors(engine: Engine) -> Iterator[None]:
    """Turn what a database says into LedgerError, or Conflict for a row that is there already."""
    shown = engine.url.render_as_string(hide_password=True).removeprefix("sqlite:///")
    try:
        yield
    except IntegrityError as error:
        raise Conflict from error
    except (OperationalError, DatabaseError) as error:
        problem = str(error.orig).splitlines()[0]
        mend = "Free some disk, or restore the file from a copy."
        if "locked" in problem:
            mend = "Another process holds it: end that one, or try again."
        raise LedgerError(
            f"the ledger cannot be used: {problem}.", file=shown, fix=f"Nothing was rented. {mend}"
        ) from error


def prepare_sqlite(engine: Engine) -> None:
    """Make every connection durable, patient, and its writers one at a time."""

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


def text_of(amount: Usd) -> str:
    """An amount as the ledger writes it: every digit."""
    return f"{amount:f}"
