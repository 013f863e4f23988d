"""Runs on the stand-in recipe: killed anywhere, resumed, they end the same; failures and stops say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from fast import FastGround, make_ground, over_and_clean
from jobs import Launcher


@pytest.fixture(scope="session")
def fast_python(tmp_path_factory: pytest.TempPathFactory) -> FastGround:
    return make_ground(tmp_path_factory.mktemp("fast"))


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastGround:
    ground = make_ground(tmp_path / "ground")
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(ground.python))
    return ground


def test_a_whole_run_ends_settled_with_everything_told(fast: FastGround, launcher: Launcher) -> None:
    code, outcome, err = launcher("run", fast.job())
    assert code == 0, err
    assert over_and_clean(launcher, outcome["run"])["training"]["steps"] == 5


def test_a_job_without_a_general_set_runs_and_says_that_forgetting_is_not_measured(
    fast: FastGround, launcher: Launcher
) -> None:
    code, plan, err = launcher("plan", fast.job())
    assert code == 0, err
    assert plan["data"]["general_hours"] == 0
    assert any("forgets" in warning for warning in plan["data"]["warnings"])
