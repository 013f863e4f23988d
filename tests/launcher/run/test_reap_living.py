"""`launcher reap --owner` beside a runner that lives, as in a CI job's last step: it releases, and is waited for."""

from __future__ import annotations

import json
from pathlib import Path

from fast import FastGround, over_and_clean
from jobs import Launcher

from launcher.runner.control import is_running
from tests.patience import until


def detached(launcher: Launcher, job: Path, owner: str) -> str:
    out, _ = launcher.start("run", job, "--detach", "--json", LAUNCHER_OWNER=owner).communicate(timeout=120)
    run = str(json.loads(out)["run"])
    until(lambda: is_running(launcher.home / "runs" / run))
    return run


def test_what_it_names_is_released_by_its_own_runner_and_what_it_does_not_goes_on(
    fast: FastGround, launcher: Launcher
) -> None:
    mine = detached(launcher, fast.job(2000, step_s=0.05, name="mine.yaml"), "gha-7-1")
    other = detached(launcher, fast.job(2000, step_s=0.05, name="other.yaml"), "gha-8-1")
    reap = launcher.start("reap", "--owner", "gha-7-1", "--json")
    out, err = reap.communicate(timeout=300)
    told = json.loads(out)
    assert (reap.returncode, told["pending"]) == (0, []), (told, err)
    outcome = over_and_clean_of(launcher, mine)
    assert (outcome["state"], outcome["exit"], outcome["released"]) == ("cancelled", 130, True)
    assert is_running(launcher.home / "runs" / other)
    assert any(fact["run"] == other and fact["why"] == "its runner lives" for fact in told["seen"])
    assert launcher("stop", other, "--now")[0] == 130
    over_and_clean(launcher, other)


def over_and_clean_of(launcher: Launcher, run: str) -> dict[str, object]:
    code, outcome, err = launcher("resume", run)
    assert code == 130, err
    return outcome
