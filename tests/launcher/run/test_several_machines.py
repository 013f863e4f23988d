"""Two machines as one job, whole: planned, rented through SkyPilot, started together, its model home, both released.

SkyPilot refuses several nodes at RunPod, and so does the launcher: both checks are lifted here, for the simulated
RunPod alone (lifted/sitecustomize.py says why). The stand-in's first node trains only once the others have called it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fast import FastGround
from jobs import REPO, Launcher
from rented import RentedGround, lower, raise_with_image

from launcher.providers.runpod_api import carries
from launcher.providers.skypilot import lodging
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
WHOLE = pytest.mark.slow("LAUNCHER_TEST_WHOLE")  # minutes long: make test-skypilot
YES = ("--confirm", "YES", "--max-cost", "4")
LIFTED = """
from sky.clouds import RunPod, cloud
RunPod._CLOUD_UNSUPPORTED_FEATURES.pop(cloud.CloudImplementationFeatures.MULTI_NODE, None)
"""


class LiftedGround(RentedGround):
    """Pods are named as SkyPilot names them, and there may be several for a lease."""

    @property
    def env(self) -> dict[str, str]:
        plugin = self.fast.folder / "lifted" / lodging.PLUGIN.name
        plugin.parent.mkdir(exist_ok=True)
        plugin.write_text(lodging.PLUGIN.read_text(encoding="utf-8") + LIFTED, encoding="utf-8")
        path = os.pathsep.join([str(REPO), str(Path(__file__).with_name("lifted"))])
        return {**super().env, "PYTHONPATH": path, "LAUNCHER_TEST_PLUGIN": str(plugin)}

    def machines(self) -> list[dict[str, Any]]:
        labels = [lease.label for lease in self.ledger.leases()]
        return [row for row in self.cloud.bill()["machines"] if any(carries(row["label"], one) for one in labels)]

    def job_of(self, nodes: int, **nature: Any) -> Path:
        job = self.job("runpod", "skypilot", patience_s=2400, **nature)
        job.write_text(job.read_text().replace("via: skypilot", f"via: skypilot, nodes: {nodes}"))
        return job


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("rented")
    held = raise_with_image(folder / "state", folder, "--seed", "13", "--layer", str(image.ensure()))
    try:
        yield held
    finally:
        lower(held)


@pytest.fixture
def ground(standing: Standing, fast: FastGround, launcher: Launcher) -> Iterator[LiftedGround]:
    catalog.place(launcher.home)
    yield LiftedGround(fast, launcher, standing)
    standing.fault("end_all")


@WHOLE
def test_two_machines_are_rented_trained_on_as_one_and_both_released(ground: LiftedGround) -> None:
    code, outcome, err = ground.run("run", ground.job_of(2), *YES, timeout_s=3000)
    assert (code, outcome.get("state"), outcome.get("released")) == (0, "settled", True), (outcome, err)
    run = outcome["run"]
    rows = ground.machines()
    assert sorted(row["label"].rsplit("-", 1)[1] for row in rows) == ["head", "worker"]
    ground.assert_all_released(run, outcome["usd"]["ceiling"])
    (lease,) = ground.ledger.leases(run)
    assert lease.machine and len(lease.machine["facts"]["nodes"]) == 2
    rate = sum(float(row["usd_per_hour"]) for row in rows)  # the bill's is with the disk
    assert float(lease.machine["usd_per_hour"]) == pytest.approx(rate, rel=0.2)

    told = json.loads((ground.launcher.home / "runs" / run / "adapted_model.nemo").read_text())["told"]
    assert (told["NODE_RANK"], told["NUM_NODES"], told["NUM_GPUS_PER_NODE"]) == ("0", "2", "1")
    assert len(set(told["NODE_IPS"].split())) == 2
    assert not list((ground.launcher.home / "skypilot").glob("pl-*"))
