"""SkyPilot's API server and the runner killed together once the pod of a launch exists: nothing of it is left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from attended import Attended
from fast import FastGround
from jobs import Launcher
from rented import lower, raise_with_image
from test_rented_through_skypilot import YES, SkyGround

from tests.cloud import catalog, image
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def ground(fast: FastGround, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyGround]:
    folder = tmp_path_factory.mktemp("rented")
    standing = raise_with_image(folder / "state", folder, "--seed", "19", "--layer", str(image.ensure()))
    try:
        catalog.place(launcher.home)
        yield SkyGround(fast, launcher, standing)
    finally:
        standing.fault("end_all")
        lower(standing)


def servers(launcher: Launcher) -> list[psutil.Process]:
    """Every process of the lease's SkyPilot."""
    found, folder = [], str(launcher.home / "skypilot")
    for process in psutil.process_iter(["cwd", "status"]):
        with suppress(psutil.Error):
            if str(process.info["cwd"]).startswith(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_the_sentinel_ends_what_a_killed_server_was_creating(ground: SkyGround, attended: Attended) -> None:
    process = ground.start("run", ground.job("runpod", "skypilot"), *YES)
    run = attended.only()
    until(lambda: ground.machines() and servers(ground.launcher), 300)  # it bills, and SkyPilot has more to do there
    killed = servers(ground.launcher)
    for each in killed:
        with suppress(psutil.Error):
            each.kill()
    attended.kill(attended.runner(run))
    out, err = process.communicate(timeout=500)
    outcome = json.loads(out)
    assert (process.returncode, outcome["released"]) in ((0, True), (5, True)), (outcome, err)
    assert [each["did"] for each in outcome["rescues"]] == ["went on"]
    ground.assert_all_released(run, outcome["usd"]["ceiling"], told=False)
    attended.gone()
    assert servers(ground.launcher) == []
