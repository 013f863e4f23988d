"""One simulated cloud for all grounds, and a launcher that rents there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from grounds import GROUNDS, Ground
from renting import PLANTED, Renting, hurried

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.ledger import Ledger
from launcher.providers import release as releasing
from tests.cloud.conftest import Standing, command, raise_cloud


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """One cloud for a worker's tests; Vast's machines may end themselves here, so that the call for it is heard."""
    state = tmp_path_factory.mktemp("cloud") / "state"
    try:
        yield raise_cloud(state, "--seed", "11", "--set", "quick.boot_s=0.3", "--set", "vast.self_destroy=true")
    finally:
        assert command(state, "down").returncode == 0


@pytest.fixture(params=GROUNDS, ids=[ground.name for ground in GROUNDS])
def ground(request: pytest.FixtureRequest) -> Ground:
    held: Ground = request.param
    return held


@pytest.fixture
def renting(standing: Standing, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Renting]:
    for name, value in {**standing.env, **PLANTED}.items():
        monkeypatch.setenv(name, f"{value}:{os.environ['PATH']}" if name == "PATH" else value)
    monkeypatch.setattr(releasing, "_ASK_AGAIN_S", 0.5)
    monkeypatch.setattr("launcher.providers.brev.provider.PAUSE_S", 0.05)
    home = Home(tmp_path / "home").ensure()
    clock = SystemClock()
    provider = hurried(ground.make(home, clock), ground.slow)
    yield Renting(standing, ground, home, provider, Ledger.open(home, rng=random.Random()))
    standing.fault("end_all")
