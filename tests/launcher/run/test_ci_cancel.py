"""CI runs that are cancelled while they rent: the example workflows' reap leaves nothing of them, and all else alone.

LAUNCHER_TEST_CANCELS=50 (make test-ci-cancel) cancels fifty, at random moments; make test three.
"""

from __future__ import annotations

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ci import EXAMPLES, MOMENTS, Ci, Workflow, colleague_label
from fast import FastGround
from jobs import Launcher
from rented import RentedGround

from tests.cloud.conftest import Standing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "23", "--set", "runpod.balance_usd=1e6", "--set", "vast.balance_usd=1e6",
         "--set", "brev.balance_usd=1e6")  # fmt: skip
CANCELS = int(os.environ.get("LAUNCHER_TEST_CANCELS", "3"))
DAY_S = 86_400.0


@pytest.fixture
def ci(standing: Standing, fast: FastGround, launcher: Launcher, tmp_path: Path,
       monkeypatch: pytest.MonkeyPatch) -> Ci:  # fmt: skip
    ground = RentedGround(fast, launcher, standing)
    for provider in ("runpod", "vast", "brev"):
        ground.job(provider, steps=2000, step_s=0.05, name=f"{provider}.yaml")
    for name, value in standing.env.items():
        if name != "PATH":
            monkeypatch.setenv(name, value)  # for the colleague, who rents in this process
    return Ci(ground, tmp_path / "ci")


def test_cancelled_runs_leave_nothing_and_a_colleagues_machine_and_a_foreign_one_stay(ci: Ci) -> None:
    rng = random.Random(int(os.environ.get("LAUNCHER_TEST_SEED", "1")))
    spared = {colleague_label(), "training-box-3"}
    ci.rent_as_somebody_else("runpod", colleague_label())
    ci.rent_as_somebody_else("vast", "training-box-3")
    standing = ci.standing()
    assert len(standing) == len(spared)

    def cancel(run: int) -> None:
        evicted = run % 5 < 2  # the machine that the job runs on is gone, without a signal
        moment = "created" if run < 2 else rng.choice(MOMENTS)
        ci.cancelled(run, ("runpod", "vast", "brev")[run % 3], moment, rng.uniform(0, 2.0), evicted=evicted)
        if run % 5 == 0:  # on completion of that run, long before any deadline; the others are left to the schedule
            left = ci.of(run)
            told = ci.reap(over=run)
            assert (told["exit"] in (0, 6), ci.of(run)) == (True, set()), told
            assert all(f"{label} (run" in told["out"] for label in left), told
            for _ in range(3):  # where a provider's list was not sure, as another run began, the next one is
                if told["exit"] != 0:
                    again.append(told["out"])
                    told = ci.reap(over=run)
            assert told["exit"] == 0, told
            reaped.update(left)

    reaped: set[str] = set()
    again: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cancel, range(CANCELS)))
    assert reaped  # else nothing was tried
    assert ci.standing() >= standing
    left = ci.standing() - standing
    assert left  # else the schedule has nothing to do
    ci.ground.cloud.fault("clock_jump", seconds=DAY_S)  # the schedule, a day later by the providers' clock
    told = ci.reap()
    assert told["exit"] == 0, told
    assert ci.standing() == standing
    assert sum(line.startswith("released ") for line in told["out"].splitlines()) == len(left), told
    sys.stdout.write(f"{CANCELS} cancelled: {len(reaped)} left to the reap on completion, {len(left)} to the clock; ")
    sys.stdout.write(f"swept again {len(again)} times: {again}\n")


def test_the_workflows_are_what_their_words_say(ci: Ci) -> None:
    """What no run against the simulated cloud can show: triggers, and that no secret is part of a command."""
    train, reap = Workflow(EXAMPLES / "train.yml", {}, {}), Workflow(EXAMPLES / "reap.yml", {}, {})
    on = reap.text[True]  # YAML's `on`
    assert on["workflow_run"] == {"workflows": [train.text["name"]], "types": ["completed"]}
    assert on["schedule"]
    (release,) = [step for step in train.steps() if "launcher reap" in step.get("run", "")]
    assert release["if"] == "always()"
    (owner,) = [reap.steps()[-1]["env"]["OVER"]]
    assert "gha-{0}-{1}" in owner  # as train.yml names itself
    assert train.text["env"]["LAUNCHER_OWNER"] == "gha-${{ github.run_id }}-${{ github.run_attempt }}"
    for workflow in (train, reap):
        assert "concurrency" not in workflow.text
        for step in workflow.steps():
            assert "${{" not in step.get("run", ""), "whoever writes its value would write the command"
