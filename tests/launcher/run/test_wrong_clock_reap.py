"""A reaper whose clock is an hour off, on the machine of a runner that died: no early end, and no late one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from rented import RentedGround
from test_rented_odds import FAKETIME, billing

from launcher.money import Usd
from launcher.reaper.labels import Label
from recipes.contract import EVENTS, read_events
from tests.faults.field import Field
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "41")
YES = ("--confirm", "YES", "--max-cost", "3")
SHORT_S = 60.0


def off(hours: int) -> dict[str, str]:
    library = next(path for path in FAKETIME if path.exists())
    return {"LD_PRELOAD": str(library), "NO_FAKE_STAT": "1", "FAKETIME": f"{hours:+d}h"}


def test_with_its_clock_an_hour_fast_reap_ends_nothing_early_and_resume_goes_on(ground: RentedGround) -> None:
    """The run may take less than an hour: by a clock that is an hour fast its deadline is over."""
    job = ground.job("runpod", steps=60, step_s=0.2)
    process = ground.start("run", job, *YES, LAUNCHER_WITHOUT="sentinel")
    runs = ground.launcher.home / "runs"
    (note,) = until(lambda: list(runs.glob("*/runner.json")), 300)
    until(lambda: any(event.get("at_step") for _, event in read_events(note.with_name(EVENTS))), 300)
    os.kill(json.loads(note.read_text())["pid"], signal.SIGKILL)
    process.communicate(timeout=120)
    (label,) = billing(ground)
    code, told, err = ground.run("reap", **off(+1))
    assert (code, told["released"], told["pending"]) == (0, [], []), (told, err)
    assert [(fact["label"], "resume" in fact["why"]) for fact in told["seen"]] == [(label, True)]
    assert billing(ground) == [label]
    code, outcome, err = ground.run("resume", note.parent.name, **off(+1))
    assert (code, outcome["released"]) in ((0, True), (8, True)), (outcome, err)
    assert billing(ground) == []
    assert ground.billed() <= Usd(outcome["usd"]["ceiling"])  # what is booked is an hour more: two clocks had a part


def test_with_its_clock_an_hour_slow_reap_ends_a_machine_at_its_deadline(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    field = Field(tmp_path_factory.mktemp("slow"))
    try:
        copy = field.copy("brev", "evaluate", SHORT_S)  # whose machines have nothing that would end them
        died = {"LAUNCHER_FAILPOINT": "runner@provider.arm.after", "LAUNCHER_WITHOUT": "sentinel,reaper"}
        assert copy.program("launcher.runner", str(copy.root), copy.run, **died).communicate(300)
        (machine,) = copy.machines()
        label = Label.read(machine["label"])
        assert label is not None
        assert copy.alive()
        time.sleep(max(0.0, (label.ends - datetime.now(UTC)).total_seconds() + 1))
        reap = [sys.executable, "-m", "launcher", "--home", str(copy.root), "reap", "--json"]
        done = subprocess.run(reap, env={**field.env, **off(-1)}, capture_output=True, text=True, check=False)
        told = json.loads(done.stdout)
        assert [fact["label"] for fact in told["released"]] == [label.text], (told, done.stderr)
        assert "behind brev's" in " ".join(told["notes"])
        assert copy.alive() == []
        assert copy.billed() <= copy.ceiling
    finally:
        field.close()
