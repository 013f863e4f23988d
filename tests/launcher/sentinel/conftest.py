"""What the sentinel's tests share: the fast ground where runs cost money, and the processes of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "run")]

from attended import Attended  # noqa: E402
from fast import FastGround, make_ground  # noqa: E402
from jobs import Launcher  # noqa: E402
from paid import PaidGround  # noqa: E402

# With rented machines, SkyPilot's server killed, a full disk: `make test-sentinel`. (`make faults`: every effect.)
SLOW = ["test_hung_slow.py", "test_rented_sentinel.py", "test_skypilot_server_killed.py"]
collect_ignore = [] if os.environ.get("LAUNCHER_TEST_SENTINEL") else SLOW
os.environ["LAUNCHER_SENTINEL_PAUSES_S"] = "0.2,0.4"  # two more runners, soon


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastGround:
    """Ten short recordings and the stand-in recipe: a whole run takes two seconds."""
    ground = make_ground(tmp_path / "ground")
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(ground.python))
    return ground


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    """A launcher whose home is empty."""
    return Launcher(tmp_path / "home")


@pytest.fixture
def paid(fast: FastGround, launcher: Launcher) -> Iterator[PaidGround]:
    """Runs that cost money, at the scripted provider."""
    ground = PaidGround(fast, launcher)
    yield ground
    ground.let_go()


@pytest.fixture
def attended(launcher: Launcher) -> Iterator[Attended]:
    """The runners and sentinels of that launcher's runs: none may be left when a test ends."""
    held = Attended(Path(launcher.home))
    yield held
    try:
        held.gone()
    finally:
        held.end()
