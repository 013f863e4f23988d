"""Rented runs under odd circumstances: two launchers at once with the same job, and clocks that are wrong."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jobs import Launcher
from rented import RentedGround

from launcher.clock import parse_iso
from launcher.reaper.labels import Label
from tests.patience import until

FAKETIME = [Path(each) for each in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
                                    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")]  # fmt: skip
CLOUD = ("--seed", "31")
pytestmark = [
    pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not any(path.exists() for path in FAKETIME),
                       reason="needs the Debian package faketime: apt-get install faketime"),
]  # fmt: skip
YES = ("--confirm", "YES", "--max-cost", "3")
WRONG = (-1, 1) if os.environ.get("LAUNCHER_FAULTS") == "all" else (-1,)


def billing(ground: RentedGround) -> list[str]:
    return [row["label"] for row in ground.cloud.bill()["machines"] if row["state"] != "terminated"]


def test_two_launchers_with_the_same_job_at_once_rent_one_machine_and_release_it(ground: RentedGround) -> None:
    job = ground.job("vast")
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: ground.run("run", job, *YES), range(2)))
    assert [code for code, _, _ in ended] == [0, 0], [err for _, _, err in ended]
    (run,) = {outcome["run"] for _, outcome, _ in ended}
    assert len(ground.machines()) == 1
    ground.assert_all_released(run, ended[0][1]["usd"]["ceiling"])


@pytest.mark.parametrize("hours", WRONG)
def test_with_its_clock_an_hour_off_a_run_has_the_time_it_was_given_whatever_the_clock_of_who_looks(
    ground: RentedGround, hours: int
) -> None:
    """Its label tells the true deadline, by which a reaper without the ledger, a day ahead, leaves it alone."""
    wrong = {"LD_PRELOAD": str(next(path for path in FAKETIME if path.exists())), "NO_FAKE_STAT": "1"}
    process = ground.start("run", ground.job("runpod", steps=30, step_s=0.1), *YES, **wrong, FAKETIME=f"{hours:+d}h")
    elsewhere = RentedGround(ground.fast, Launcher(ground.launcher.home.parent / "elsewhere"), ground.cloud)
    until(lambda: process.poll() is not None or billing(ground), 300)
    code, told, err = elsewhere.run("reap", **wrong, FAKETIME="+1d")
    assert (code, told["released"], told["pending"], len(told["seen"])) == (0, [], [], 1), (told, err)
    assert "ahead of runpod's: deadlines were judged by runpod's" in " ".join(told["notes"])
    out, err = process.communicate(timeout=400)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"], outcome["released"]) == (0, "settled", True), (outcome, err)
    (row,) = ground.machines()
    label = Label.read(row["label"])
    (lease,) = ground.ledger.leases(outcome["run"])
    assert label is not None
    assert abs(parse_iso(lease.deadline) - label.ends - timedelta(hours=hours)) < timedelta(minutes=1)
    assert label.ends > datetime.now(UTC)
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"], clock_s=1)
