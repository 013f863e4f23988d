"""The ledger's two ways to its database, a read and a write, with every fault in one clear line."""

from __future__ import annotations

import getpass
import json
import os
import random
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from launcher.clock import Clock, iso
from launcher.errors import BadInputError, LedgerError
from launcher.failpoints import effect
from launcher.home import Home
from launcher.ledger import schema as t
from launcher.ledger.database import shown
from launcher.money import Usd

OWNER = "LAUNCHER_OWNER"
_LONGEST_OWNER = 24


class Conflict(Exception):  # noqa: N818
    """A row that must be unique is there already."""


class Store:
    """An engine with the two ways to use it. What is read inside a write is true until it commits."""

    def __init__(self, engine: Engine, clock: Clock, rng: random.Random, home: Home) -> None:
        self._engine, self._clock, self._rng, self._home = engine, clock, rng, home

    @property
    def is_shared(self) -> bool:
        """Whether other machines can use this ledger too: PostgreSQL, not a file of this machine."""
        return self._engine.dialect.name == "postgresql"

    @property
    def is_in_home(self) -> bool:
        """Whether it is the file in the launcher's own folder."""
        return str(self._engine.url.database) == str(self._home.root / "ledger.sqlite")

    @cached_property
    def place(self) -> str:
        """This machine and this home, as no other has them: whose runner locks can be asked from here."""
        return place_of(self._home)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, alone: any error undoes it."""
        with effect("ledger.write"), readable_errors(self._engine), self._engine.begin() as db:
            yield db

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Several reads of one moment."""
        with readable_errors(self._engine), self._engine.connect() as db:
            db.execution_options(launcher_read=True)
            if self.is_shared:  # several reads see one moment, as SQLite's do
                db.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield db

    def _now(self) -> str:
        return iso(self._clock.now())

    def _note(self, db: Connection, kind: str, facts: Mapping[str, Any], run: str | None = None,
              lease: str | None = None) -> None:  # fmt: skip
        plain = json.loads(json.dumps(dict(facts), default=str))
        values = {"at": self._now(), "run": run, "lease": lease, "kind": kind, "facts": plain}
        db.execute(insert(t.events).values(values))


#: What a database says (a part of it, in small letters) -> what would mend it.
_MENDS = {
    "locked": "Another process holds it: end that one, or try again.",
    "lock timeout": "Another launcher holds it: try again in a minute.",
    "full": "Free some disk.",
    "readonly": "Make the file and its folder yours to write.",
    "permission denied": "Ask for the right to create and write tables in that database.",
    "password": "Set the password in LAUNCHER_LEDGER, or in ~/.pgpass.",
    "resolve host": "See that the host in LAUNCHER_LEDGER is right.",
    "does not exist": "See that the names in LAUNCHER_LEDGER are right.",
    "invalid": "See that LAUNCHER_LEDGER is right.",
    "a folder": "Move it away, or name another file.",
    "unable to open": "See that its folder is there and yours.",
}


@contextmanager
def readable_errors(engine: Engine) -> Iterator[None]:
    """Turn what a database says into LedgerError, or Conflict for a row that is there already."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict from error
    except DBAPIError as error:
        postgres = engine.dialect.name == "postgresql"
        problem = _first_words(str(error.orig))
        for secret in (engine.url.password, engine.url.query.get("password")):
            problem = problem.replace(str(secret), "***") if secret else problem
        if not postgres and Path(str(engine.url.database)).is_dir():
            problem = "it is a folder, not a file"
        other = "See that the database is up and can be reached." if postgres else "Restore the file from a copy."
        mend = next((mend for word, mend in _MENDS.items() if word in problem.lower()), other)
        raise LedgerError(
            f"the ledger cannot be used: {problem}.", file=shown(engine.url), fix=f"Nothing new was rented. {mend}"
        ) from error


def _first_words(said: str) -> str:
    """What a database says, without the lines that explain it, and without the statement it says it of."""
    first, *more = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    return f"{first} {more[0]}"[:300] if first.endswith(":") and more else first[:300].rstrip(".")


def owner() -> str:
    """Who acts: $LAUNCHER_OWNER, which a CI sets to a name for each of its runs, else user@host.

    Raises BadInputError for a name that would not stand whole in a label: cut short, it would name others, too.
    """
    named = os.environ.get(OWNER)
    if named:
        if slug(named) != named:
            raise BadInputError(
                "is no owner's name.", key=OWNER, value=named,
                fix=f"At most {_LONGEST_OWNER} of: small letters, digits, and hyphens between them.",
            )  # fmt: skip
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def slug(owner: str) -> str:
    """An owner as a label tells it."""
    return "".join(c if c.isalnum() else "-" for c in owner.lower())[:_LONGEST_OWNER].strip("-")


def place_of(home: Home) -> str:
    """Host name, and a word of this home's own: containers share names and machine ids, and homes are copied."""
    file = home.root / "place"
    if file.exists():
        return f"{socket.gethostname()}:{file.read_text(encoding='ascii')}"
    with effect("home.name"):
        part = file.with_name(f".place.{os.getpid()}.{threading.get_ident()}")
        part.write_text(secrets.token_hex(8), encoding="ascii")
        with suppress(FileExistsError):  # another launcher's word: the first one stays
            file.hardlink_to(part)
        part.unlink()
    return f"{socket.gethostname()}:{file.read_text(encoding='ascii')}"


def text_of(amount: Usd) -> str:
    """An amount as the ledger writes it: every digit."""
    return f"{amount:f}"
