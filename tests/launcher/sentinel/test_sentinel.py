"""Runners, sentinels and terminals killed in the midst of a run that costs money: it goes on, or all is released."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from attended import Attended
from jobs import REPO
from paid import PaidGround, Terminal

from launcher.home import Home
from launcher.ledger import LeaseState, RunState
from launcher.runner.control import ask_to_stop, runner_lock
from launcher.sentinel.keeping import start
from launcher.sentinel.marks import is_guarded
from tests.patience import until

STEPS, HELD_AFTER, STEP_S = 80, 30, 0.03


def begun(paid: PaidGround, attended: Attended, *more: object, step: int = 5, **env: str) -> tuple[Any, str]:
    """A run in the midst of its training, where it stays until `let_go`: (the launcher that watches it, the run)."""
    args = ("--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5", "--json", *more)
    job = paid.held_job(HELD_AFTER, steps=STEPS, step_s=STEP_S)
    process = paid.launcher.start("run", job, *args, **{**paid.env, **env})
    run = attended.only()
    attended.far(run, step)
    return process, run


def ended(process: Any) -> tuple[int, dict[str, Any], str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    (line,) = out.splitlines()
    return process.returncode, json.loads(line), err


def assert_released(paid: PaidGround, run: str, rented: int = 1) -> None:
    ledger = paid.ledger
    assert {lease.state for lease in ledger.leases(run)} == {LeaseState.RELEASED}
    assert sorted(line["event"] for line in paid.bill() if line["event"] != "refused") == (
        ["create"] * rented + ["end"] * rented
    )
    assert ledger.spent(run) == paid.billed()
    held = ledger.reservation(run)
    assert held is not None
    assert held.settled_at


def test_killed_runners_and_sentinels_are_followed_by_others_that_go_on_with_the_same_machine(
    paid: PaidGround, attended: Attended
) -> None:
    process, run = begun(paid, attended)
    runner, sentinel = attended.runner(run), attended.sentinel(run)
    assert psutil.Process(sentinel) not in psutil.Process(runner).children(recursive=True)
    assert os.getsid(sentinel) not in (os.getsid(runner), os.getsid(process.pid), sentinel)
    start(Home(paid.launcher.home), run, attended.dir(run))  # a second one leaves at once
    assert len([line for line in attended.processes() if "launcher.sentinel" in line]) == 1
    attended.kill(sentinel)
    attended.sentinel(run, but=sentinel)  # the runner has started another
    os.killpg(runner, signal.SIGKILL)  # its whole process group
    attended.runner(run, but=runner)
    paid.let_go()
    code, outcome, err = ended(process)
    assert (code, outcome["state"]) == (0, "settled"), err
    assert outcome["training"]["steps"] == STEPS
    assert [(each["layer"], each["did"]) for each in outcome["rescues"]] == [("sentinel", "went on")]
    assert "the runner died; another one goes on from the journal" in err
    assert_released(paid, run)
    assert paid.fast.starts("finetune") == 1
    attended.gone()
    code, told, _ = paid.run("status", run)
    assert (code, told["runs"][0]["guarded"]) == (0, False)
    assert [each["did"] for each in told["runs"][0]["rescues"]] == ["went on"]


def test_runners_that_die_again_and_again_are_not_started_for_ever(paid: PaidGround, attended: Attended) -> None:
    process, run = begun(paid, attended)
    runner = 0
    for _ in range(3):
        runner = attended.runner(run, but=runner)
        attended.kill(runner)
    code, outcome, err = ended(process)
    assert (code, outcome["state"], outcome["released"]) == (5, "failed", True), err
    assert "its runner died again and again; its sentinel released" in outcome["reason"]
    assert [each["did"] for each in outcome["rescues"]] == ["went on", "went on", "released"]
    assert json.loads(Path(outcome["receipt"]).read_text())["released"] is True
    assert_released(paid, run)
    attended.gone()


def test_a_runner_killed_while_it_was_told_to_release_is_not_followed_by_one_that_works_on(
    paid: PaidGround, attended: Attended
) -> None:
    process, run = begun(paid, attended, LAUNCHER_FAILPOINT="runner@provider.destroy.before",
                         LAUNCHER_FAILPOINT_FIRED=str(paid.fast.folder))  # fmt: skip
    os.kill(attended.runner(run), signal.SIGTERM)
    code, outcome, err = ended(process)
    assert (code, outcome["state"], outcome["released"]) == (130, "cancelled", True), err
    assert [each["did"] for each in outcome["rescues"]] == ["released"]
    assert not list(attended.dir(run).glob("*.nemo"))
    assert_released(paid, run)
    attended.gone()


def test_what_a_provider_refuses_to_release_is_asked_for_again_until_it_is_gone(
    paid: PaidGround, attended: Attended
) -> None:
    paid.script(refuse_release=2)  # the runner's ask, and the sentinel's first
    process, run = begun(paid, attended, step=1)
    ask_to_stop(attended.dir(run), "now")
    code, outcome, err = ended(process)
    assert (code, outcome["exit"], outcome["released"]) == (6, 6, False), err
    code, told, err = paid.run("status", run)
    assert told["runs"][0]["guarded"] is True
    assert "STILL BILLING?" in err
    attended.gone()
    outcome = paid.ledger.run(run).outcome or {}
    assert (outcome["exit"], outcome["released"]) == (130, True)
    assert [each["did"] for each in outcome["rescues"]] == ["released"]
    assert_released(paid, run)


def test_a_closed_terminal_changes_nothing_and_the_sentinel_stays(paid: PaidGround, attended: Attended) -> None:
    job = paid.held_job(HELD_AFTER, steps=STEPS, step_s=STEP_S)
    terminal = Terminal(paid, "run", job, "--offers", paid.offers_file)
    terminal.wait_for("Type YES")
    terminal.send("YES\n")
    run = attended.only()
    attended.far(run, 3)
    terminal.hang_up()
    runner, sentinel = attended.runner(run), attended.sentinel(run)
    for pid in (runner, sentinel):
        os.kill(pid, signal.SIGHUP)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        os.kill(sentinel, signum)
    attended.far(run, 10)
    assert (attended.runner(run), attended.sentinel(run)) == (runner, sentinel)
    attended.kill(runner)
    paid.let_go()
    attended.gone()
    assert paid.ledger.run(run).state is RunState.SETTLED
    assert_released(paid, run)


def test_after_both_were_killed_resume_brings_a_sentinel_and_reap_releases_at_the_deadline(
    paid: PaidGround, attended: Attended
) -> None:
    process, run = begun(paid, attended)
    attended.kill(attended.sentinel(run), attended.runner(run))
    code, _, err = ended(process)
    assert code == 6, err  # nobody is left who releases it: that may still bill
    assert "launcher resume" in err
    code, _, err = paid.run("resume", run, "--detach")
    assert code == 0, err
    until(lambda: is_guarded(attended.dir(run)))
    attended.kill(attended.sentinel(run), attended.runner(run))
    ledger = paid.ledger
    (lease,) = ledger.leases(run)
    with ledger.writing() as db:
        db.exec_driver_sql("UPDATE leases SET deadline = '2020-01-01T00:00:00.000Z'")
    code, told, err = paid.run("reap")
    assert code == 0, err
    assert [each["label"] for each in told["released"]] == [lease.label]
    assert_released(paid, run)


def test_where_somebody_else_releases_the_sentinel_leaves_it_to_them(paid: PaidGround, attended: Attended) -> None:
    """`reap` and a resumed runner hold the runner's lock while they work: the sentinel waits for them."""
    process, run = begun(paid, attended)
    runner = attended.runner(run)
    attended.kill(runner)
    with runner_lock(attended.dir(run)) as mine:
        assert mine
        assert not process.poll()
        with pytest.raises(AssertionError):
            until(lambda: json.loads((attended.dir(run) / "runner.json").read_text())["pid"] != runner, 3)
    paid.let_go()
    code, outcome, err = ended(process)
    assert (code, outcome["state"]) == (0, "settled"), err
    attended.gone()


def test_a_run_that_costs_nothing_has_none(paid: PaidGround, attended: Attended) -> None:
    code, outcome, err = paid.run("run", paid.job(text="resources: {providers: [local]}\n", budget="interactive"))
    assert code == 0, err
    assert not (attended.dir(outcome["run"]) / "sentinel.lock").exists()


def test_nothing_is_rented_where_no_sentinel_can_be_started(
    paid: PaidGround, attended: Attended, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'launcher.runner' in sys.orig_argv: sys.executable = '/nowhere/python'\n"
    )
    args = ("--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    path = f"{folder}{os.pathsep}{paid.env['PYTHONPATH']}"
    code, outcome, err = paid.run("run", paid.job(), *args, PYTHONPATH=path)
    assert (code, outcome["released"]) == (5, True), err
    assert "could not be started: [Errno 2] No such file or directory: '/nowhere/python'" in err
    assert paid.bill() == []


def test_it_needs_nothing_but_the_standard_library(paid: PaidGround) -> None:
    code = (
        "import sys, launcher.sentinel.__main__ as _\n"
        "print([name for name in sys.modules if name.partition('.')[0] not in sys.stdlib_module_names])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(REPO)})  # fmt: skip
    assert all(name == "__main__" or name.startswith(("launcher", "recipes")) for name in eval(done.stdout))
