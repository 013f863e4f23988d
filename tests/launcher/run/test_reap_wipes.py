"""Machines that `launcher reap` releases are rid of what is not public first, where the key to them is at hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from door import door
from rented import BUDGETS, RentedGround
from test_hostile_names import Disks

from recipes.contract import EVENTS, read_events
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "37")
YES = ("--confirm", "YES", "--max-cost", "3")


def private_job(ground: RentedGround, name: str) -> Path:
    """A job with data that no marketplace host gets, and that takes longer than its runner will live."""
    text = BUDGETS.replace("approval:", "sensitivity: {phi: [own, secure]}, approval:")
    (ground.fast.folder / "budgets.yaml").write_text(text, encoding="utf-8")
    job = ground.job("runpod", steps=4000, step_s=0.1, name=name)
    job.write_text(job.read_text().replace("{manifest: m.jsonl}", "{manifest: m.jsonl, sensitivity: phi}"))
    return job


def abandoned(ground: RentedGround, name: str) -> str:
    """A run that trains, and whose runner has died without a sentinel; its id."""
    process = ground.start("run", private_job(ground, name), *YES, "--detach", LAUNCHER_WITHOUT="sentinel")
    out, _ = process.communicate()
    run = str(json.loads(out)["run"])
    run_dir = ground.launcher.home / "runs" / run
    until(lambda: any(event.get("at_step") for _, event in read_events(run_dir / EVENTS)), 200)
    os.kill(json.loads((run_dir / "runner.json").read_text())["pid"], signal.SIGKILL)
    return run


def test_reap_removes_private_data_before_a_release_and_says_where_it_could_not(ground: RentedGround) -> None:
    with_key, without = abandoned(ground, "a.yaml"), abandoned(ground, "b.yaml")
    shutil.rmtree(ground.launcher.home / "runs" / without / "keys")
    labels = {lease.run: lease.label for lease in ground.ledger.leases()}
    disks = Disks(ground.launcher.home)
    assert [path for path in disks.now() if labels[with_key] in path]
    with door(ground.cloud) as held:
        held.instead = disks.deleting
        code, told, err = ground.run("reap", "--run", with_key, "--run", without, **held.env)
    assert (code, told["pending"]) == (0, []), (told, err)
    assert {fact["run"]: fact["wiped"] for fact in told["released"]} == {with_key: True, without: False}
    assert disks.when_deleted
    assert not [path for path in disks.when_deleted if labels[with_key] in path]
    note = f"{labels[without]}: phi data was not removed before its release (the key to it is not here)"
    assert note in " ".join(told["notes"])
    assert note in " ".join(err.split())
