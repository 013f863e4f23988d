"""The same ledger tests on both engines: SQLite, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_postgres import Postgres, running_postgres

from launcher.home import Home


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One cluster for all tests of this worker."""
    with running_postgres() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which database the ledger of this test is in: an empty one."""
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        monkeypatch.setenv("LAUNCHER_LEDGER", cluster.database())
    else:
        monkeypatch.delenv("LAUNCHER_LEDGER", raising=False)
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path, engine: str) -> Home:
    """A home whose ledger is empty, on either engine."""
    return Home(tmp_path / "home")


@pytest.fixture
def local_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose ledger is a SQLite file in it."""
    monkeypatch.delenv("LAUNCHER_LEDGER", raising=False)
    return Home(tmp_path / "home")
