"""Which schema a ledger has, and what to do about it: nothing, create, upgrade, or refuse."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from launcher.errors import LedgerError, StateError
from launcher.ledger import schema as t
from launcher.ledger.database import shown
from launcher.ledger.store import Store


def bring_up_to_date(store: Store) -> None:
    """Leave the store at the present schema. One that is there already is only read, and Alembic not imported.

    Raises StateError for a ledger written by a newer launcher, LedgerError for one that cannot be used.
    """
    with store.reading() as db:
        if _held(db) == t.SCHEMA_VERSION:
            return
    with store.writing() as db:  # whoever comes second finds it done
        held = _held(db)
        if held is None:
            t.metadata.create_all(db)
            db.execute(insert(t.meta).values(key="schema", value=str(t.SCHEMA_VERSION)))
            db.execute(insert(t.alembic_version).values(version_num=str(t.SCHEMA_VERSION)))
        elif held > t.SCHEMA_VERSION:
            raise StateError(
                f"this ledger was written by a newer launcher (schema {held}, here {t.SCHEMA_VERSION}).",
                file=shown(db.engine.url),
                fix="Upgrade parakeet-launcher, or point LAUNCHER_HOME elsewhere.",
            )
        elif held < t.SCHEMA_VERSION:
            from launcher.ledger.migrate import migrate

            migrate(db, held, t.SCHEMA_VERSION)
            db.execute(update(t.meta).where(t.meta.c.key == "schema").values(value=str(t.SCHEMA_VERSION)))
    if db.dialect.name == "sqlite":
        Path(str(db.engine.url.database)).chmod(0o600)


def _held(db: Connection) -> int | None:
    """The schema's number, or None where there is no ledger yet."""
    if not db.dialect.has_table(db, t.meta.name):
        if db.dialect.has_table(db, t.runs.name):
            raise LedgerError("the ledger does not say its schema", file=shown(db.engine.url), fix=_RESTORE)
        return None
    value = db.execute(select(t.meta.c.value).where(t.meta.c.key == "schema")).scalar()
    if value is None or not value.isdigit():
        raise LedgerError(f"the ledger's schema is {value!r}", file=shown(db.engine.url), fix=_RESTORE)
    return int(value)


_RESTORE = "Nothing new was rented. Restore it from a copy."
