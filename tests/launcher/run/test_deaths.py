"""Runs on the stand-in recipe: killed anywhere, resumed, they end the same; failures and stops say what they are."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fast import FastGround, over_and_clean, runner_that_dies
from jobs import Launcher

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.job import load_job
from launcher.ledger import Ledger, RunState
from launcher.runner import performing
from launcher.runner.__main__ import main as run_here
from launcher.runner.control import ask_to_stop, is_running, spawn
from launcher.workflow import advance, plan_job
from recipes.contract import EVENTS, damaged, read_complete, read_events
from recipes.supervise import read_json
from tests.patience import until

STEPS = 8


def reserved(launcher: Launcher, job: Path) -> str:
    """A run of the job as `launcher run` leaves it just before it starts the runner."""
    home, clock = Home(launcher.home), SystemClock()
    planned = plan_job(load_job(job), home, clock)
    ledger = Ledger.open(home, clock)
    run, _ = ledger.create_run(planned.plan.run_key, planned.plan.model_dump(mode="json"), planned.plan.digest)
    advance(ledger, run)
    return run.run


def at_step(launcher: Launcher, run: str, least: int) -> bool:
    events = read_events(launcher.home / "runs" / run / EVENTS)
    return any(e.get("step") == "finetune" and int(e.get("at_step") or 0) >= least for _, e in events)


def phase(launcher: Launcher, run: str, name: str) -> bool:
    events = read_events(launcher.home / "runs" / run / EVENTS)
    return any(e.get("kind") == "phase" and e.get("name") == name for _, e in events)


def not_running(launcher: Launcher, run: str) -> bool:
    return not is_running(launcher.home / "runs" / run)


def kill_recipe(launcher: Launcher) -> None:
    for alive in (launcher.home / "boxes").glob("*/steps/*/alive.json"):
        if (alive.parent / "exit.json").exists():
            continue
        facts = read_json(alive) or {}
        for name in ("pid", "child"):
            command = Path(f"/proc/{facts.get(name)}/cmdline")
            if command.exists() and (b"fast_recipe" in command.read_bytes() or b"supervise" in command.read_bytes()):
                os.kill(int(facts[name]), signal.SIGKILL)


def settled_once(fast: FastGround, launcher: Launcher, run: str, steps: int = STEPS) -> None:
    outcome = over_and_clean(launcher, run)
    assert (outcome["state"], outcome["exit"]) == ("settled", 0), outcome["reason"]
    assert outcome["training"]["steps"] == steps
    ledger = Ledger.open(Home(launcher.home))
    assert [each.run for each in ledger.runs()] == [run]
    assert len(ledger.leases(run)) == 1
    fast.starts("finetune")
    run_dir = launcher.home / "runs" / run
    for folder in (run_dir, run_dir / "before", run_dir / "after"):
        listed = read_complete(folder)
        assert listed is not None
        assert damaged(folder, listed) == []


def test_a_whole_run_ends_settled_with_everything_told(fast: FastGround, launcher: Launcher) -> None:
    code, outcome, err = launcher("run", fast.job(STEPS))
    assert code == 0, err
    settled_once(fast, launcher, outcome["run"])
    assert "\x1b" not in err


def test_a_job_without_a_general_set_runs_and_says_that_forgetting_is_not_measured(
    fast: FastGround, launcher: Launcher
) -> None:
    code, plan, err = launcher("plan", fast.job())
    assert code == 0, err
    assert plan["data"]["general_hours"] == 0
    assert any("forgets" in warning for warning in plan["data"]["warnings"])


# -- killed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(int(os.environ.get("LAUNCHER_TEST_KILLS", "1"))))
def test_killed_before_any_of_its_effects_again_and_again_it_ends_the_same(
    fast: FastGround, launcher: Launcher, seed: int
) -> None:
    rng = random.Random(seed)
    run = reserved(launcher, fast.job(STEPS))
    for lives in range(60):  # each life gets further than the one before
        if runner_that_dies(launcher, run, rng.randint(5, 60) + 12 * lives):
            break
        if rng.random() < 0.3:
            kill_recipe(launcher)
    settled_once(fast, launcher, run)


def test_over_but_nobody_told_is_finished_by_resume_attach_and_report(fast: FastGround, launcher: Launcher) -> None:
    code, outcome, err = launcher("run", fast.job(STEPS))
    assert code == 0, err
    for verb in ("attach", "report", "resume", "stop"):
        ledger = Ledger.open(Home(launcher.home))
        ledger.set_outcome(outcome["run"], None)  # type: ignore[arg-type]  # as the kill left it
        code, told, err = launcher(verb, outcome["run"])
        assert code == 0, (verb, err)
        assert told["receipt"] == outcome["receipt"]
        settled_once(fast, launcher, outcome["run"])


@pytest.mark.parametrize("state", ["planned", "approved"])
def test_a_run_that_a_killed_launcher_left_before_its_runner_is_taken_on(
    fast: FastGround, launcher: Launcher, state: str
) -> None:
    job, home = fast.job(STEPS), Home(launcher.home)
    planned = plan_job(load_job(job), home, SystemClock())
    ledger = Ledger.open(home)
    run, _ = ledger.create_run(planned.plan.run_key, planned.plan.model_dump(mode="json"), planned.plan.digest)
    if state == "approved":
        ledger.advance_run(run.run, RunState.PLANNED, RunState.APPROVED)
    code, outcome, err = launcher("run", job) if state == "planned" else launcher("resume", run.run)
    assert (code, outcome["run"]) == (0, run.run), err
    settled_once(fast, launcher, run.run)


def test_one_job_launched_from_six_shells_at_once_is_one_run_with_one_trainer(
    fast: FastGround, launcher: Launcher
) -> None:
    steps = 200  # not over before the last shell has begun, for then that one's run is another
    job = fast.job(steps, step_s=0.05)
    launcher("plan", job)
    with ThreadPoolExecutor(6) as pool:
        ended = list(pool.map(lambda _: launcher("run", job), range(6)))
    assert {code for code, _, _ in ended} == {0}, [err for _, _, err in ended]
    (run,) = {outcome["run"] for _, outcome, _ in ended}
    settled_once(fast, launcher, run, steps)
    assert fast.starts("finetune") == 1


def test_two_jobs_on_the_same_base_at_once_both_end(fast: FastGround, launcher: Launcher) -> None:
    jobs = [fast.job(steps, name=f"job{steps}.yaml", evaluate_s=0.2) for steps in (3, 4, 5)]
    base = fast.folder / "job3.yaml.nemo"
    for job in jobs[1:]:
        job.write_text(job.read_text().replace(f"{job.name}.nemo", base.name))
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda job: launcher("run", job), jobs))
    assert [code for code, _, _ in ended] == [0, 0, 0], [err for _, _, err in ended]
    left = [path.name for path in (launcher.home / "baselines").iterdir() if path.name.startswith(".")]
    assert left == []


def test_asking_whether_a_runner_lives_never_keeps_one_from_starting(fast: FastGround, launcher: Launcher) -> None:
    run = reserved(launcher, fast.job(STEPS))
    run_dir = launcher.home / "runs" / run
    run_dir.mkdir(parents=True)
    (run_dir / "runner.lock").touch()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(lambda: [is_running(run_dir) for _ in range(20_000)]) for _ in range(4)]
        spawn(Home(launcher.home), run, SystemClock())
        assert is_running(run_dir) or Ledger.open(Home(launcher.home)).run(run).over
        for each in asking:
            each.result()
    until(lambda: not is_running(run_dir))
    settled_once(fast, launcher, run)


# -- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nature", "code", "says"),
    [
        ({"exit": 10, "say": "the rows are wrong"}, 2, "the rows are wrong"),
        ({"exit": 11, "say": "out of memory at batch size 1"}, 5, "out of memory at batch size 1"),
        ({"exit": 12, "say": "diverged: NaN at step 3"}, 5, "diverged: NaN at step 3"),
        ({"exit": 14, "say": "the gate says no"}, 7, "the gate says no"),
        ({"exit": 1, "say": "boom"}, 5, "boom"),
        ({"kill": signal.SIGSEGV}, 5, "killed by SIGSEGV"),
        ({"kill": signal.SIGKILL, "at": 3}, 5, "died 4 times without a word: most likely this"),
        ({"complete": "none"}, 5, "wrote no whole COMPLETE.json"),
        ({"complete": "torn"}, 5, "wrote no whole COMPLETE.json"),
        ({"complete": "damaged"}, 5, "adapted_model.nemo came home damaged"),
        ({"complete": "missing"}, 5, "lists adapted_model.nemo, which is not there"),
    ],
)  # fmt: skip
def test_a_recipe_that_fails_says_why_releases_all_and_leaves_nothing_that_looks_whole(
    fast: FastGround, launcher: Launcher, nature: dict[str, Any], code: int, says: str
) -> None:
    returned, outcome, err = launcher("run", fast.job(STEPS, finetune=nature))
    assert (returned, outcome["exit"], outcome["state"]) == (code, code, "failed")
    assert says in outcome["reason"]
    assert "\x1b" not in outcome["reason"]
    assert outcome["artifacts"] == []
    over_and_clean(launcher, outcome["run"])
    run_dir = launcher.home / "runs" / outcome["run"]
    assert not list(run_dir.glob("*.nemo"))
    assert not list(run_dir.glob(".*"))
    assert says.split(":", maxsplit=1)[0] in err


def test_a_row_file_that_no_report_can_be_made_of_does_not_keep_the_run_from_ending(
    fast: FastGround, launcher: Launcher
) -> None:
    (held := fast.folder / "held").touch()
    run = reserved(launcher, fast.job(STEPS, held=["after", str(held)]))
    spawn(Home(launcher.home), run, SystemClock())
    after = launcher.home / "runs" / run / "after"
    until(lambda: phase(launcher, run, "after"))
    before = launcher.home / "runs" / run / "before" / "score.json"
    before.write_text('{"micro": 3}')
    held.unlink()
    until(lambda: not is_running(after.parent))
    outcome = over_and_clean(launcher, run)
    assert (outcome["state"], outcome["exit"]) == ("settled", 0)
    assert any("report could not be written" in warning for warning in outcome["warnings"])
    assert launcher("resume", run)[0] == 0


def test_a_baseline_that_was_damaged_in_the_cache_is_measured_again(fast: FastGround, launcher: Launcher) -> None:
    assert launcher("run", fast.job(STEPS))[0] == 0
    (rows,) = (launcher.home / "baselines").glob("*/per_sample.json")
    rows.write_text(rows.read_text()[:50])
    job = fast.folder / "job.yaml"
    job.write_text(job.read_text().replace(f"max_steps: {STEPS}", "max_steps: 3"))
    code, outcome, err = launcher("run", job)
    assert code == 0, err
    assert fast.starts("before") == 2
    assert outcome["scores"]["before"]["target"]["rows"] > 0


def test_recordings_deleted_under_a_run_end_it_with_their_name(fast: FastGround, launcher: Launcher) -> None:
    (held := fast.folder / "held").touch()
    text = "gate: {advisory: true}\n"
    run = reserved(launcher, fast.job(STEPS, text=text, held=["before", str(held)]))
    spawn(Home(launcher.home), run, SystemClock())
    until(lambda: phase(launcher, run, "before"))
    for path in fast.folder.glob("*.wav"):
        path.unlink()
    held.unlink()
    until(lambda: not is_running(launcher.home / "runs" / run))
    over_and_clean(launcher, run)


# -- stops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase_of_stop", ["before", "finetune", "after"])
@pytest.mark.parametrize("runner", ["lives", "is dead", "and recipe are dead"])
def test_a_stop_keeps_the_model_there_is_and_says_when_there_is_none(
    fast: FastGround, launcher: Launcher, phase_of_stop: str, runner: str
) -> None:
    slow = {} if phase_of_stop == "finetune" else {phase_of_stop: {"sleep_s": 300}}
    run = reserved(launcher, fast.job(1 if phase_of_stop == "after" else 2000, step_s=0.02, **slow))
    run_dir = launcher.home / "runs" / run
    spawn(Home(launcher.home), run, SystemClock())
    until(lambda: at_step(launcher, run, 2) if phase_of_stop == "finetune" else phase(launcher, run, phase_of_stop))
    if runner != "lives":
        held = read_json(run_dir / "runner.json")
        assert held is not None
        os.kill(held["pid"], signal.SIGKILL)
        until(lambda: not is_running(run_dir))
        if "recipe" in runner:
            kill_recipe(launcher)
    code, outcome, err = launcher("stop", run)
    assert outcome["state"] == "stopped", err
    over_and_clean(launcher, run)
    if phase_of_stop == "before":
        assert (code, outcome["exit"], outcome["artifacts"]) == (130, 130, [])
        assert "nothing to keep" in outcome["reason"]
    else:
        assert (code, outcome["exit"]) == (8, 8)
        model = Path(outcome["artifacts"][0]["path"])
        assert model.name == "adapted_model.nemo"
        assert json.loads(model.read_text())["trained"] >= (2 if phase_of_stop == "finetune" else 1)
    fast.starts("finetune")
    assert launcher("resume", run)[0] == code  # it is over: resume says the same


@pytest.mark.parametrize("moment", ["reserved", "before", "finetune", "after"])
def test_stop_now_releases_at_any_moment(fast: FastGround, launcher: Launcher, moment: str) -> None:
    slow = {moment: {"sleep_s": 300}}
    run = reserved(launcher, fast.job(1 if moment == "after" else 2000, step_s=0.02, **slow))
    if moment != "reserved":
        spawn(Home(launcher.home), run, SystemClock())
        until(lambda: phase(launcher, run, moment))
    code, outcome, err = launcher("stop", run, "--now")
    assert (code, outcome["state"], outcome["exit"]) == (130, "cancelled", 130), err
    over_and_clean(launcher, run)


def test_a_stop_after_the_end_changes_nothing(fast: FastGround, launcher: Launcher) -> None:
    _, outcome, _ = launcher("run", fast.job(STEPS))
    code, again, _ = launcher("stop", outcome["run"])
    assert (code, again) == (0, outcome)


def test_a_recipe_deaf_to_sigterm_is_killed_in_the_end(
    fast: FastGround, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reserved(launcher, fast.job(STEPS, finetune={"deaf": True, "at": 3}))
    monkeypatch.setattr(performing, "COLLECT_PATIENCE_S", 0.2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: until(lambda: at_step(launcher, run, 3)) and ask_to_stop(
            launcher.home / "runs" / run, "collect"))  # fmt: skip
        taken = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
        handlers = [signal.getsignal(signum) for signum in taken]
        code = run_here(str(launcher.home), run)
        for signum, handler in zip(taken, handlers, strict=True):
            signal.signal(signum, handler)
    assert code == 130
    assert "nothing to keep" in over_and_clean(launcher, run)["reason"]


def test_at_the_deadline_the_model_there_is_comes_home(fast: FastGround, launcher: Launcher) -> None:
    job = fast.job(10_000, step_s=0.01)
    job.write_text(job.read_text() + "budget: short\n")
    caps = "per_run_usd: 1, per_day_usd: 1, per_month_usd: 1, max_usd_per_hour: 1"
    (fast.folder / "budgets.yaml").write_text(f"default: short\nbudgets: {{short: {{{caps}, max_hours: 700}}}}\n")
    home = Home(launcher.home)
    planned = plan_job(load_job(job), home, SystemClock())
    choice = planned.plan.choice  # the estimate would refuse so short a budget
    ends_soon = choice.model_copy(update={"ceiling": choice.ceiling.model_copy(update={"run_s": 3.0})})
    plan = planned.plan.model_copy(update={"candidates": (ends_soon,), "chosen": 0})
    ledger = Ledger.open(home)
    run, _ = ledger.create_run(plan.run_key, plan.model_dump(mode="json"), plan.digest)
    code, outcome, err = launcher("resume", run.run)
    assert (code, outcome["exit"], outcome["state"]) == (8, 8, "stopped"), err
    assert Path(outcome["artifacts"][0]["path"]).name == "adapted_model.nemo"
    assert fast.starts("after") == 0
    over_and_clean(launcher, run.run)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_launcher_run_without_a_terminal_releases_at_any_moment(
    fast: FastGround, launcher: Launcher, signum: int
) -> None:
    rng = random.Random(int(signum))
    for turn in range(4):
        job = fast.job(500 + turn, step_s=0.02)
        process = launcher.start("run", job, "--json")
        time.sleep(rng.uniform(0.15, 2.0))  # the moment is what is random here
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
        if process.returncode == -signum:
            assert out == ""  # before Python itself had begun
            continue
        assert process.returncode == 130, err
        (line,) = out.splitlines()
        assert json.loads(line)["exit"] == 130
        assert "Traceback" not in err
        ledger = Ledger.open(Home(launcher.home))
        for run in ledger.runs():
            until(partial(not_running, launcher, run.run))
            over_and_clean(launcher, run.run)
