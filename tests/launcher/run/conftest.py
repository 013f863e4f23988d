"""What tests of whole runs share: a launcher with a home of its own, and what it runs on, here or rented."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fast import FastGround, make_ground
from jobs import Launcher
from rented import RentedGround, standing_cloud

from tests.cloud.conftest import Standing

# What `make faults` runs beside its deaths: each rents machines for a minute.
SLOW = ["test_reap_wipes.py", "test_wrong_clock_reap.py"]
collect_ignore = [] if os.environ.get("LAUNCHER_FAULTS") == "all" else SLOW


@pytest.fixture(scope="module")
def standing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """One simulated cloud for a module, whose machines have the stand-in recipe; its CLOUD says how it is made."""
    with standing_cloud(tmp_path_factory.mktemp("rented"), *request.module.CLOUD) as held:
        yield held


@pytest.fixture
def ground(standing: Standing, fast: FastGround, launcher: Launcher) -> Iterator[RentedGround]:
    """The module's cloud without machines or faults of an earlier test, and a launcher of its own."""
    standing.fault("end_all")
    yield RentedGround(fast, launcher, standing)
    standing.fault("end_all")


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    """A launcher whose home is empty."""
    return Launcher(tmp_path / "home")


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastGround:
    """Ten short recordings and the stand-in recipe: a whole run takes two seconds."""
    ground = make_ground(tmp_path / "ground")
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(ground.python))
    return ground
