"""A run whose machine SkyPilot rents, whole: by the cloud's own bill, and with nothing of SkyPilot's left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from fast import FastGround
from jobs import Launcher
from rented import RentedGround, standing_cloud

from launcher.providers.runpod_api import carries
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
YES = ("--confirm", "YES", "--max-cost", "3")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """SkyPilot sets a machine up from the net: this cloud's machines have what it would fetch."""
    with standing_cloud(tmp_path_factory.mktemp("rented"), "--seed", "13", "--layer", str(image.ensure())) as held:
        yield held


class SkyGround(RentedGround):
    """Pods are named as SkyPilot names them."""

    def machines(self) -> list[dict[str, Any]]:
        labels = [lease.label for lease in self.ledger.leases()]
        return [row for row in self.cloud.bill()["machines"] if any(carries(row["label"], one) for one in labels)]


@pytest.fixture
def ground(standing: Standing, fast: FastGround, launcher: Launcher) -> Iterator[SkyGround]:
    catalog.place(launcher.home)
    yield SkyGround(fast, launcher, standing)
    standing.fault("end_all")


def test_a_job_runs_on_a_machine_that_skypilot_rented_and_leaves_nothing(ground: SkyGround) -> None:
    code, outcome, err = ground.run("run", ground.job("runpod", "skypilot"), *YES, timeout_s=600)
    assert (code, outcome.get("state"), outcome.get("released")) == (0, "settled", True), (outcome, err)
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])
    (row,) = ground.machines()
    (lease,) = ground.ledger.leases(outcome["run"])
    assert row["label"] != lease.label and carries(row["label"], lease.label)  # SkyPilot's pod, not one of ours
    assert not list((ground.launcher.home / "skypilot").glob("pl-*"))
    folder = f"{ground.launcher.home}/skypilot"
    left = [one.info["cmdline"] for one in psutil.process_iter(["cwd", "cmdline", "status"])
            if one.info["status"] != psutil.STATUS_ZOMBIE and str(one.info["cwd"]).startswith(folder)]  # fmt: skip
    assert left == []
