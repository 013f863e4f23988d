"""Runs that never began, and runs of another version of the launcher: every verb answers, and all is released."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing

import pytest
from fast import FastGround
from jobs import Launcher
from paid import ENDLESS, PaidGround

from launcher.errors import RefusedError
from launcher.ledger import LeaseState, RunState
from launcher.money import Usd
from launcher.workflow import advance


@pytest.fixture
def paid(fast: FastGround, launcher: Launcher) -> PaidGround:
    return PaidGround(fast, launcher)


def detached(paid: PaidGround, **nature: object) -> str:
    args = ("--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5", "--detach")
    code, answer, err = paid.run("run", paid.job(**nature), *args)
    assert code == 0, err
    return str(answer["run"])


@pytest.mark.parametrize("verb", ["attach", "resume", "stop", "report", "status", "logs"])
def test_every_verb_answers_for_a_run_that_was_refused_before_it_began(paid: PaidGround, verb: str) -> None:
    ledger = paid.ledger
    run, _ = ledger.create_run("key", {"candidates": []}, "digest")
    ledger.abandon(run.run, "its launcher died while it was planned")
    code, answer, err = paid.run(verb, run.run)
    assert code == (130 if verb in ("attach", "resume", "stop") else 0), err
    assert "run" in answer or "runs" in answer
    if verb in ("attach", "resume", "stop", "report"):
        assert "its launcher died while it was planned" in err


def test_a_run_that_another_shell_was_refused_is_refused_here_too(paid: PaidGround) -> None:
    code, plan, _ = paid.run("plan", paid.job(), "--offers", paid.offers_file)
    assert code == 0
    args = ("run", paid.job(), "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    code, outcome, err = paid.run(*args)
    assert code == 0, err
    ledger = paid.ledger
    held = ledger.run(outcome["run"])
    run, _ = ledger.create_run(
        "again", held.plan, held.digest,
        approval={"how": "typed", "ceiling_usd": Usd(plan["ceiling_usd"]), "allowed": {}, "digest": held.digest},
    )  # fmt: skip
    ledger.move_run(run.run, RunState.REFUSED, reason="the day has no room", exit_code=4)
    with pytest.raises(RefusedError, match="the day has no room"):
        advance(ledger, run)


def test_a_run_of_another_version_is_not_taken_further_but_can_be_released(
    paid: PaidGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_WITHOUT", "sentinel")  # it would release at once
    paid.script(fractions=[0.5])
    run = detached(paid, steps=5000, step_s=ENDLESS / 5000)
    runner = paid.launcher.home / "runs" / run / "runner.json"
    ledger = paid.ledger
    while ledger.leases(run) == [] or ledger.leases(run)[-1].state is not LeaseState.BUSY:
        ledger = paid.ledger
    os.kill(json.loads(runner.read_text())["pid"], signal.SIGKILL)
    with closing(sqlite3.connect(paid.launcher.home / "ledger.sqlite")) as db, db:
        plan = json.loads(db.execute("SELECT plan FROM runs").fetchone()[0])
        for name in ("considered", "rules", "worst_case"):
            plan.pop(name)
        db.execute("UPDATE runs SET plan = ?", (json.dumps(plan),))
    code, answer, _ = paid.run("resume", run)
    assert code == 2
    assert "planned by another version of this launcher" in answer["error"]["message"]
    assert f"launcher stop {run}" in answer["error"]["message"]
    code, outcome, err = paid.run("stop", run)
    assert code == 130, err
    assert outcome["released"] is True
    assert ledger.run(run).state is RunState.CANCELLED
    assert [line["event"] for line in paid.bill()] == ["create", "end"]
    assert ledger.spent(run) == paid.billed()
    held = ledger.reservation(run)
    assert held is not None
    assert held.settled_at
