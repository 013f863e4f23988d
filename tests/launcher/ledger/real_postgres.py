"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, on a unix socket only, gone at the end."""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

# Fast and careless: this data is worth nothing after the test.
SETTINGS = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "listen_addresses": "",
    "shared_buffers": "16MB", "max_connections": "150", "log_min_messages": "fatal",
}  # fmt: skip
USER, GUARDED = "launcher", "guarded"  # the second one needs a password
PR_SET_PDEATHSIG = 1


class Postgres:
    """A running cluster; `database()` makes a fresh, empty one in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def database(self) -> str:
        """A new database; its address as LAUNCHER_LEDGER takes it."""
        name = f"ledger{next(self._numbers)}"
        with psycopg.connect(host=str(self.folder), user=USER, dbname="postgres", autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return f"postgresql+psycopg://{USER}@/{name}?host={quote(str(self.folder), safe='')}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a cluster, as an unprivileged user where this is root (PostgreSQL refuses root), and end it."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 characters
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        who = _unprivileged()
        shutil.chown(folder, who.pw_uid, who.pw_gid)
        user = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    try:
        data = folder / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale"]
        subprocess.run([*initdb, "--no-sync"], cwd=folder, check=True, capture_output=True, **user)  # type: ignore[call-overload]
        hba = data / "pg_hba.conf"
        hba.write_text(f"local all {GUARDED} scram-sha-256\n{hba.read_text()}")
        settings = {**SETTINGS, "unix_socket_directories": str(folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, *options], cwd=folder, stdout=log, stderr=log,
                preexec_fn=_end_with_parent, **user,  # type: ignore[call-overload]  # noqa: PLW1509
            )  # fmt: skip
        try:
            _wait(server, folder)
            yield Postgres(folder)
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: there is nothing to save
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    here = [Path(found).resolve().parent] if found else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in (*here, *debian) if (folder / "postgres").exists()), None)


def _unprivileged() -> pwd.struct_passwd:
    names = [name for name in ("postgres", "nobody") if any(who.pw_name == name for who in pwd.getpwall())]
    return pwd.getpwnam(names[0])


def _end_with_parent() -> None:
    """A test run that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _wait(server: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-1000:]}")
        try:
            psycopg.connect(host=str(folder), user=USER, dbname="postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)  # its start is nothing we could wait for otherwise
        else:
            return
    pytest.fail("PostgreSQL did not answer within 30 s")
