"""One PostgreSQL for a team: whole runs from two homes, as two people or two CI runners have them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from real_postgres import Postgres

from launcher.money import Usd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "run"))
from fast import make_ground
from jobs import Launcher
from paid import BUDGETS, PaidGround

CAPS = "per_run_usd: 5, per_day_usd: 0.5, per_month_usd: 50, max_usd_per_hour: 2.5, concurrent_runs: 4"


@pytest.fixture
def team(tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> tuple[PaidGround, PaidGround]:
    """Two homes on one ledger, under a budget of $0.50 a day."""
    monkeypatch.setenv("LAUNCHER_LEDGER", postgres.database())
    grounds = []
    for name in ("ann", "ben"):
        place = tmp_path / name
        grounds.append(PaidGround(make_ground(place / "ground"), Launcher(place / "home"), BUDGETS.format(caps=CAPS)))
    return grounds[0], grounds[1]


def test_a_day_is_shared_and_ci_needs_no_excuse(team: tuple[PaidGround, PaidGround]) -> None:
    ann, ben = team
    ann.script(fractions=[1.0])
    args = ("--confirm", "YES", "--max-cost", "5")
    code, _, err = ann.run("run", ann.job(), "--offers", ann.offers_file, *args, CI="true")
    assert code == 0, err
    spent = ann.billed()
    assert spent > Usd("0.25"), "what follows needs a day that is half spent"
    code, answer, err = ben.run("run", ben.job(), "--offers", ben.offers_file, *args, CI="true")
    assert code == 4, err
    assert "left today" in answer["error"]["message"]
    assert ben.bill() == []
    _, held, _ = ben.run("budget")
    (day,) = [cap for cap in held["budgets"][0]["caps"] if cap["cap"] == "per_day_usd"]
    assert day["charged_usd"] == str(spent)
    assert not (ann.launcher.home / "ledger.sqlite").exists()


def test_a_colleagues_live_run_is_seen_and_left_alone(team: tuple[PaidGround, PaidGround]) -> None:
    ann, ben = team
    job = ann.job(steps=2000, step_s=0.02)
    args = ("--confirm", "YES", "--max-cost", "5", "--detach")
    code, started, err = ann.run("run", job, "--offers", ann.offers_file, *args)
    assert code == 0, err
    try:
        code, reaped, err = ben.run("reap")
        assert code == 0, err
        assert reaped["released"] == []
        assert [line["event"] for line in ann.bill()] == ["create"]
    finally:
        code, _, err = ann.run("stop", started["run"], "--now")
    assert code == 130, err
    assert [line["event"] for line in ann.bill()] == ["create", "end"]
    assert os.environ["LAUNCHER_LEDGER"] not in err
