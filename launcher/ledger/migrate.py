"""Takes an older ledger to the present schema with Alembic; imported only then."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from launcher.errors import LedgerError

FOLDER = Path(__file__).parent / "migrations"


def migrate(db: Connection, held: int, wanted: int) -> None:
    """Upgrade inside the caller's write transaction: all of it or nothing. A SQLite file is copied first."""
    file = db.engine.url.database
    if db.dialect.name == "sqlite" and file:
        _copy(Path(file), Path(f"{file}.before-schema-{wanted}"))
    config = config_of(db)
    if not db.dialect.has_table(db, "alembic_version"):
        command.stamp(config, str(held))
    command.upgrade(config, str(wanted))


def config_of(db: Connection) -> Config:
    """What Alembic's commands take: our versions, on this connection."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = db
    return config


def _copy(file: Path, copy: Path) -> None:
    """A whole copy of a database in use (its write-ahead log included), in place only once it is complete."""
    part = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    try:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        part.chmod(0o600)
        part.replace(copy)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(
            f"the copy that is kept before an upgrade cannot be written: {error}.", file=copy,
            fix="Nothing was changed. Free some disk.",
        ) from error  # fmt: skip
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
