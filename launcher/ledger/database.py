"""Which database the ledger is in, and what each engine needs: durable, patient, one writer at a time."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from launcher.errors import BadInputError
from launcher.home import Home
from launcher.redact import redacted

VARIABLE = "LAUNCHER_LEDGER"
POSTGRES = "postgresql+psycopg"
PATIENCE_S = 30.0  # for other writers; each holds the ledger for milliseconds
CONNECT_S = 10
#: One number for all launchers: whoever writes to a PostgreSQL ledger holds this lock until it commits.
WRITERS = 0x7061726B
#: psycopg's own settings: give up on a server that went silent; work behind a connection pooler.
_PATIENT = {
    "connect_timeout": CONNECT_S, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 30_000, "prepare_threshold": None, "application_name": "parakeet-launcher",
}  # fmt: skip


def engine_of(home: Home) -> Engine:
    """The ledger's engine: $LAUNCHER_LEDGER, else SQLite in the launcher's folder. Raises BadInputError."""
    url = _url(home)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url)
        _prepare_sqlite(engine)
        _keep_secrets_out(engine)
        return engine
    # No pool: a run's few writes do not pay for connections that a server may drop in between.
    settings = {name: value for name, value in _PATIENT.items() if name not in url.query}
    engine = create_engine(url, poolclass=NullPool, connect_args=settings)
    _prepare_postgres(engine)
    _keep_secrets_out(engine)
    return engine


def shown(url: URL) -> str:
    """Where the ledger is, for a person: never with a password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = f"{url.host or url.query.get('host') or 'this machine'}{f':{url.port}' if url.port else ''}"
    return f"postgresql://{host}/{url.database or ''}"


def _url(home: Home) -> URL:
    given = os.environ.get(VARIABLE)
    if not given:  # made of parts: a folder's name may hold a ?
        return URL.create("sqlite", database=str(home.root / "ledger.sqlite"))
    fix = f"Write {POSTGRES}://USER@HOST/NAME or sqlite:////PATH, or unset it."
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # The value is not repeated: it may hold a password.
        raise BadInputError("is not the address of a database.", key=VARIABLE, fix=fix) from None
    if url.drivername not in ("sqlite", "sqlite+pysqlite", POSTGRES):
        raise BadInputError(f"{url.drivername}:// is not a database the ledger can use.", key=VARIABLE, fix=fix)
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise BadInputError("names no file: such a ledger would forget everything.", key=VARIABLE, fix=fix)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_absolute():
        problem = f"{url.database} would be another ledger in every folder."
        raise BadInputError(problem, key=VARIABLE, fix="Write its whole path: sqlite:////PATH")
    return url


def _keep_secrets_out(engine: Engine) -> None:
    """Every text on its way into the ledger is redacted: a provider's error may quote a key, and so may a log."""

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _redact(_db: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
        return statement, redacted(values)


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None  # SQLAlchemy begins transactions below; the driver must not
        cursor = dbapi.cursor()
        patience = f"busy_timeout={PATIENCE_S * 1000:.0f}"
        for pragma in (patience, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(db: Connection) -> None:
        if db.get_execution_options().get("launcher_read", False):
            db.exec_driver_sql("BEGIN")
            return
        _begin_to_write(db)


def _begin_to_write(db: Connection) -> None:
    """Take the write lock at once: two launchers that both read, then both write, must not both win."""
    raw: Any = db.connection.driver_connection
    ends = time.monotonic() + PATIENCE_S
    raw.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" in str(error) and time.monotonic() < ends:
                    # SQLite's own wait asks ever less often: among many writers, who waits long would starve.
                    time.sleep(random.uniform(0.001, 0.01))
                    continue
                db.exec_driver_sql("BEGIN IMMEDIATE")  # fails again, in SQLAlchemy's words
            return
    finally:
        raw.execute(f"PRAGMA busy_timeout={PATIENCE_S * 1000:.0f}")


def _prepare_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def _begin(db: Connection) -> None:
        if db.get_execution_options().get("launcher_read", False):
            return  # a snapshot: see Store._read
        # One writer at a time, as on SQLite. What is read after the lock is true until the commit, so that a check
        # and what stands on it are one; a launcher that dies or hangs in between gives the lock back.
        limits = {"lock_timeout": PATIENCE_S, "idle_in_transaction_session_timeout": 2 * PATIENCE_S}
        settings = [f"set_config('{name}', '{seconds * 1000:.0f}ms', true)" for name, seconds in limits.items()]
        db.exec_driver_sql(f"SELECT {', '.join(settings)}, pg_advisory_xact_lock({WRITERS})")
