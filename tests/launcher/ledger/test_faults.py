import os
import resource
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from real_postgres import GUARDED, USER, Postgres
from sqlalchemy import event, text

from launcher.clock import SystemClock
from launcher.errors import ExitCode, LauncherError, LedgerError, StateError
from launcher.home import Home
from launcher.ledger import Caps, Ledger, database
from launcher.money import Usd

CAPS = Caps("interactive", Usd(5), Usd(10), Usd(50), concurrent_runs=2, time_zone="UTC")


def fault(act: Callable[[], object]) -> str:
    """The one line that this fault is told in."""
    with pytest.raises(LauncherError) as error:
        act()
    assert error.value.exit_code is ExitCode.BAD_INPUT
    assert "\n" not in str(error.value)
    return str(error.value)


# -- SQLite -------------------------------------------------------------------------------------------------


def test_the_ledger_is_readable_by_its_owner_alone(local_home: Home) -> None:
    Ledger.open(local_home)
    assert stat.S_IMODE((local_home.root / "ledger.sqlite").stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_one_clear_line(local_home: Home) -> None:
    local_home.ensure()
    (local_home.root / "ledger.sqlite").write_bytes(b"this is no database at all" * 100)
    said = fault(lambda: Ledger.open(local_home))
    assert said.endswith("file is not a database. Nothing new was rented. Restore the file from a copy.")


def test_a_ledger_damaged_in_the_middle_is_one_clear_line_and_reserves_nothing(local_home: Home) -> None:
    ledger = Ledger.open(local_home)
    for n in range(60):
        run, _ = ledger.create_run(f"key{n}", {"note": "x" * 3000}, "d")
    file = local_home.root / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = bytearray(file.read_bytes())
    held[4096 * 3 :] = os.urandom(len(held) - 4096 * 3)
    del ledger
    file.write_bytes(held)
    said = fault(lambda: Ledger.open(local_home).reserve(run.run, CAPS, Usd(1)))
    assert "database disk image is malformed" in said
    assert "Restore the file from a copy" in said


def test_a_folder_where_the_ledger_should_be_is_one_clear_line(local_home: Home) -> None:
    (local_home.ensure().root / "ledger.sqlite").mkdir()
    assert "ledger.sqlite: the ledger cannot be used: it is a folder" in fault(lambda: Ledger.open(local_home))


def test_a_full_disk_is_one_clear_line_and_reserves_nothing(local_home: Home) -> None:
    ledger = Ledger.open(local_home)
    runs = [ledger.create_run(f"key{n}", {}, "d")[0].run for n in range(2)]
    ledger.reserve(runs[0], CAPS, Usd(1))
    full = [True]

    @event.listens_for(ledger._engine, "begin")
    def limit(db: Any) -> None:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar() if full[0] else 1_000_000
        db.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    with pytest.raises(LedgerError, match=r"database or disk is full\. Nothing new was rented\. Free some disk"):
        ledger.create_run("large", {"note": "x" * 100_000}, "d")
    assert ledger.holders("interactive") == [runs[0]]
    full[0] = False
    ledger.reserve(runs[1], CAPS, Usd(1))
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(8)


def test_a_launcher_that_may_write_no_more_says_so_in_one_line(local_home: Home) -> None:
    Ledger.open(local_home)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))

    code = (
        "import sys; from pathlib import Path; from launcher.home import Home; from launcher.ledger import Ledger\n"
        "from launcher.errors import LedgerError\n"
        "try: Ledger.open(Home(Path(sys.argv[1]))).create_run('key', {'note': 'x' * 100_000}, 'd')\n"
        "except LedgerError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(local_home.root)], capture_output=True, text=True, preexec_fn=limit,
        check=True,
    )  # fmt: skip
    assert "the ledger cannot be used:" in ran.stdout
    assert len(ran.stdout.splitlines()) == 1
    assert Ledger.open(local_home).runs() == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may write (pytest's own are root's alone)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_ledger_that_may_only_be_read_tells_and_rents_nothing(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, team = Home(open_folder / "home"), open_folder / "team"
    team.mkdir(mode=0o755)
    monkeypatch.setenv("LAUNCHER_LEDGER", f"sqlite:///{team}/ledger.sqlite")
    run, _ = Ledger.open(home).create_run("key", {}, "d")
    home.root.chmod(0o777)
    with closing(sqlite3.connect(team / "ledger.sqlite")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # and its files stay while this one is open
        for file in team.iterdir():
            file.chmod(0o444)
        said = as_nobody(lambda: Ledger.open(home).runs()[0].run)
        assert said == run.run
        said = as_nobody(lambda: fault(lambda: Ledger.open(home).reserve(run.run, CAPS, Usd(1))))
    assert "readonly database. Nothing new was rented. Make the file and its folder yours to write." in said


def as_nobody(act: Callable[[], str]) -> str:
    """What this gives where it may not write: root itself is never refused, so another user does it."""
    if os.geteuid() != 0:
        return act()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, act().encode())
        except BaseException as error:  # noqa: BLE001  told to the parent, whose test fails
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


def test_a_ledger_that_another_process_keeps_is_one_clear_line(
    local_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = Ledger.open(local_home).create_run("key", {}, "d")
    monkeypatch.setattr(database, "PATIENCE_S", 0.05)
    ledger = Ledger.open(local_home)
    with closing(sqlite3.connect(local_home.root / "ledger.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = fault(lambda: ledger.reserve(run.run, CAPS, Usd(1)))
        assert "database is locked. Nothing new was rented. Another process holds it" in said
        assert ledger.run(run.run) == run  # who only reads is not kept waiting
    ledger.reserve(run.run, CAPS, Usd(1))


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("sesame", "is not the address of a database"),
        ("postgresql+psycopg://u:sesame@host:port/db", "is not the address of a database"),
        ("postgres://u:sesame@host/db", "postgres:// is not a database the ledger can use"),
        ("postgresql://u:sesame@host/db", "postgresql:// is not a database"),
        ("postgresql+psycopg2://u:sesame@host/db", "postgresql+psycopg2:// is not a database"),
        ("mysql://u:sesame@host/db", "mysql:// is not a database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///ledger.sqlite", "ledger.sqlite would be another ledger in every folder"),
    ],
)
def test_a_wrong_address_is_one_clear_line_without_the_password(
    local_home: Home, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    monkeypatch.setenv("LAUNCHER_LEDGER", address)
    said = fault(lambda: Ledger.open(local_home))
    assert said.startswith(f"LAUNCHER_LEDGER: {problem}")
    assert "Write " in said
    assert "sesame" not in said


# -- PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_server_that_is_not_there_or_says_nothing_is_one_clear_line(
    local_home: Home, monkeypatch: pytest.MonkeyPatch, silent: int, closed: int, tmp_path: Path
) -> None:
    for where, words in (
        (f"127.0.0.1:{closed}/db?", "refused"),
        (f"127.0.0.1:{silent}/db?connect_timeout=2", "timeout"),
        (f"/db?host={tmp_path}", "No such file"),
    ):
        monkeypatch.setenv("LAUNCHER_LEDGER", f"postgresql+psycopg://u:sesame@{where}")
        said = fault(lambda: Ledger.open(local_home))
        assert said.startswith("postgresql://")
        assert words in said
        assert "Nothing new was rented. See that the database is up and can be reached." in said
        assert "sesame" not in said


def test_a_wrong_password_a_wrong_user_and_a_wrong_name_are_one_clear_line_each(
    local_home: Home, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    where = quote(str(postgres.folder), safe="")
    with psycopg.connect(host=str(postgres.folder), user=USER, dbname="postgres", autocommit=True) as db:
        db.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'open sesame'")  # type: ignore[arg-type]
        db.execute("CREATE DATABASE guarded_one")
    for who, name, words in (
        (f"{GUARDED}:closed-sesame", "postgres", "password authentication failed"),
        (GUARDED, "postgres", "no password supplied"),
        ("nobody-here", "postgres", "does not exist"),
        (USER, "no-such-ledger", 'database "no-such-ledger" does not exist'),
        (f"{GUARDED}:open%20sesame", "guarded_one", "permission denied"),
    ):
        monkeypatch.setenv("LAUNCHER_LEDGER", f"postgresql+psycopg://{who}@/{name}?host={where}")
        said = fault(lambda: Ledger.open(local_home))
        assert words in said
        assert "Nothing new was rented. " in said
        assert "sesame" not in said


def test_a_connection_lost_in_the_middle_reserves_nothing_and_the_next_one_works(
    local_home: Home, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    monkeypatch.setenv("LAUNCHER_LEDGER", postgres.database())
    ledger = Ledger.open(local_home)
    run, _ = ledger.create_run("key", {}, "d")
    lost = [True]

    @event.listens_for(ledger._engine, "before_cursor_execute")
    def lose(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if lost[0] and statement.startswith("INSERT INTO reservations"):
            pid = conn.connection.driver_connection.info.backend_pid
            with psycopg.connect(host=str(postgres.folder), user=USER, dbname="postgres") as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    assert "terminating connection" in fault(lambda: ledger.reserve(run.run, CAPS, Usd(1)))
    lost[0] = False
    assert ledger.reservation(run.run) is None
    ledger.reserve(run.run, CAPS, Usd(1))
    assert ledger.holders("interactive") == [run.run]


def test_a_launcher_that_hangs_in_the_middle_keeps_others_out_only_for_a_while(
    local_home: Home, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    monkeypatch.setenv("LAUNCHER_LEDGER", postgres.database())
    monkeypatch.setattr(database, "PATIENCE_S", 0.1)
    ledger, other = Ledger.open(local_home), Ledger.open(local_home)
    run, _ = other.create_run("key", {}, "d")
    with pytest.raises(LedgerError, match="terminating connection due to idle-in-transaction timeout"):  # noqa: SIM117
        with ledger.writing() as db:
            assert "lock timeout" in fault(lambda: other.reserve(run.run, CAPS, Usd(1)))
            with psycopg.connect(host=str(postgres.folder), user=USER, dbname="postgres") as watcher:
                while watcher.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchone():
                    pass
            db.execute(text("SELECT 1"))
    other.reserve(run.run, CAPS, Usd(1))


# -- the clock ----------------------------------------------------------------------------------------------


class Shifted(SystemClock):
    """The machine's clock, set wrong."""

    def __init__(self, by: timedelta) -> None:
        self.by = by

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by


@pytest.mark.parametrize("minutes", [-11, 11, -60 * 24 * 400])
def test_a_clock_far_from_the_shared_ledgers_rents_nothing(
    local_home: Home, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, minutes: int
) -> None:
    monkeypatch.setenv("LAUNCHER_LEDGER", postgres.database())
    Ledger.open(local_home, Shifted(timedelta(minutes=9 if minutes > 0 else -9))).refuse_clock_skew()
    with pytest.raises(StateError, match=r"this machine's clock says .* the ledger's database .* Set the clock"):
        Ledger.open(local_home, Shifted(timedelta(minutes=minutes))).refuse_clock_skew()


def test_a_clock_behind_the_local_ledgers_newest_entry_rents_nothing(local_home: Home) -> None:
    Ledger.open(local_home).refuse_clock_skew()
    Ledger.open(local_home).journal("note", {})
    Ledger.open(local_home, Shifted(timedelta(days=3))).refuse_clock_skew()  # nothing says that this is wrong
    Ledger.open(local_home, Shifted(timedelta(minutes=-59))).refuse_clock_skew()
    with pytest.raises(StateError, match=r"the ledger's newest entry .* Nothing was rented. Set the clock"):
        Ledger.open(local_home, Shifted(timedelta(minutes=-61))).refuse_clock_skew()


def test_only_a_ledger_that_other_machines_reach_is_shared(home: Home, engine: str) -> None:
    assert Ledger.open(home).is_shared == (engine == "postgresql")
