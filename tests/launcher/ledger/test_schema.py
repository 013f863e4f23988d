import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from launcher.errors import LedgerError, StateError
from launcher.home import Home
from launcher.ledger import Caps, Ledger, RunState, schema
from launcher.ledger.database import engine_of
from launcher.ledger.migrate import FOLDER, config_of
from launcher.money import Usd

OLD = Path(__file__).parent / "schema1.sql"
CAPS = Caps("interactive", Usd(5), Usd(10), Usd(50), concurrent_runs=2, time_zone="UTC")


@pytest.fixture
def old(local_home: Home) -> Path:
    """A ledger as the first schema's launcher left it."""
    local_home.ensure()
    file = local_home.root / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(OLD.read_text(encoding="utf-8"))
    return file


def rows(file: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(file)) as db:
        db.row_factory = sqlite3.Row
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")] for name in tables}


def test_an_older_ledger_is_upgraded_without_losing_a_row(old: Path, local_home: Home) -> None:
    before = rows(old)
    ledger = Ledger.open(local_home)
    after = rows(old)
    for table, held in before.items():
        if table != "meta":
            kept = [{name: row[name] for name in held[0]} for row in after[table]]
            assert kept == held, table
    assert after["meta"] == [{"key": "schema", "value": str(schema.SCHEMA_VERSION)}]
    assert len(before["events"]) > 20
    settled, running = sorted(ledger.runs(), key=lambda run: run.created_at)
    assert (settled.state, running.state) == (RunState.SETTLED, RunState.RUNNING)
    assert running.plan["note"] == "d'été, naïve"
    assert ledger.spent(settled.run) == Usd("0.4123")
    assert ledger.holders("interactive") == [running.run]
    ledger.settle(running.run)
    new, _ = ledger.create_run("key9", {}, "d", batch="b1", item=0)
    ledger.reserve(ledger.create_run("key8", {}, "d")[0].run, CAPS, Usd(1))
    assert ledger.batch_runs("b1")[0].run == new.run


def test_a_copy_of_the_older_ledger_is_kept(old: Path, local_home: Home) -> None:
    before = rows(old)
    Ledger.open(local_home)
    copy = old.with_name(f"ledger.sqlite.before-schema-{schema.SCHEMA_VERSION}")
    assert rows(copy) == before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_an_upgrade_that_fails_changes_nothing(old: Path, local_home: Home) -> None:
    before = rows(old)
    old.with_name(f"ledger.sqlite.before-schema-{schema.SCHEMA_VERSION}").mkdir()
    with pytest.raises(LedgerError, match=r"copy that is kept.*Nothing was changed"):
        Ledger.open(local_home)
    assert rows(old) == before


def test_launchers_that_upgrade_at_once_do_it_once(old: Path, local_home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from launcher.home import Home; from launcher.ledger import Ledger\n"
        "sys.stdin.readline(); print(len(Ledger.open(Home(Path(sys.argv[1]))).runs()))"
    )
    command = [sys.executable, "-c", code, str(local_home.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ended = [racer.communicate() for racer in racers]
    assert ended == [("2\n", "")] * 4
    assert rows(old)["alembic_version"] == [{"version_num": str(schema.SCHEMA_VERSION)}]


def test_upgrading_from_nothing_makes_the_tables_that_a_new_ledger_has(home: Home) -> None:
    home.ensure()
    engine = engine_of(home)
    with engine.begin() as db:
        command.upgrade(config_of(db), "head")
        assert compare_metadata(MigrationContext.configure(db), schema.metadata) == []
        db.execute(text(f"INSERT INTO meta VALUES ('schema', '{schema.SCHEMA_VERSION}')"))
    ledger = Ledger.open(home)
    assert ledger.create_batch("key", Usd(1), "free", "d", "f")[1]
    assert not ledger.create_batch("key", Usd(1), "free", "d", "f")[1]


def test_a_new_ledger_has_the_tables_of_its_schema(home: Home) -> None:
    Ledger.open(home)
    with engine_of(home).begin() as db:
        context = MigrationContext.configure(db)
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == str(schema.SCHEMA_VERSION)


def test_the_newest_version_is_the_schema_of_this_launcher() -> None:
    assert ScriptDirectory(str(FOLDER)).get_current_head() == str(schema.SCHEMA_VERSION)


def test_the_versions_are_part_of_what_is_installed() -> None:
    packages = {path.parent for path in FOLDER.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in packages), "setuptools takes packages only"


def test_a_newer_ledger_is_refused_with_a_clear_word(home: Home) -> None:
    Ledger.open(home)
    with engine_of(home).begin() as db:
        db.execute(text("UPDATE meta SET value='99' WHERE key='schema'"))
    with pytest.raises(StateError, match=r"newer launcher \(schema 99, here \d+\). Upgrade parakeet-launcher"):
        Ledger.open(home)


@pytest.mark.parametrize("how", ["DELETE FROM meta", "UPDATE meta SET value='two'", "DROP TABLE meta"])
def test_a_ledger_that_does_not_say_its_schema_is_not_taken_for_a_new_one(home: Home, how: str) -> None:
    Ledger.open(home)
    with engine_of(home).begin() as db:
        db.execute(text(how))
    with pytest.raises(LedgerError, match=r"schema.*Restore it from a copy"):
        Ledger.open(home)


def test_an_up_to_date_ledger_is_opened_without_alembic_and_a_file_without_psycopg(local_home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from launcher.home import Home; from launcher.ledger import Ledger\n"
        "Ledger.open(Home(Path(sys.argv[1]))).runs(); print(*{'alembic', 'psycopg'} & set(sys.modules))"
    )
    for _ in ("new", "there"):
        ran = [sys.executable, "-c", code, str(local_home.root)]
        assert subprocess.run(ran, capture_output=True, text=True, check=True).stdout == "\n"
