"""Runners killed in the midst of creating, training and releasing real machines, and a disk that is full here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attended import Attended
from fast import FastGround
from jobs import Launcher
from rented import RentedGround, standing_cloud

from tests.cloud.conftest import Standing
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
YES = ("--confirm", "YES", "--max-cost", "3")
HURRIED = {"LAUNCHER_SENTINEL_PAUSES_S": "0.2"}  # one more runner


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing_cloud(tmp_path_factory.mktemp("rented"), "--seed", "17") as held:
        yield held


@pytest.fixture
def small_disk(launcher: Launcher) -> Iterator[Path]:
    """The launcher's home on a disk of its own, of 48 MB."""
    launcher.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", launcher.home], check=True)
    try:
        yield launcher.home
    finally:
        subprocess.run(["umount", "--lazy", launcher.home], check=True)


@pytest.fixture
def ground(standing: Standing, fast: FastGround, launcher: Launcher) -> Iterator[RentedGround]:
    standing.fault("end_all")
    yield RentedGround(fast, launcher, standing)
    standing.fault("end_all")


def ended(process: Any) -> tuple[int, dict[str, Any], str]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out), err


@pytest.mark.parametrize("provider", ["runpod"])
def test_killed_in_create_in_training_and_in_release_it_ends_as_if_nothing_had_happened(
    ground: RentedGround, attended: Attended, provider: str
) -> None:
    moments = ("provider.create.after", "artifact.fetch.before", "provider.destroy.before")
    killed = {
        "LAUNCHER_FAILPOINT": ",".join(f"runner@{moment}" for moment in moments),
        "LAUNCHER_FAILPOINT_FIRED": str(ground.fast.folder), "LAUNCHER_SENTINEL_PAUSES_S": "0.2,0.2,0.2",
    }  # fmt: skip
    code, outcome, err = ended(ground.start("run", ground.job(provider), *YES, **killed))
    assert (code, outcome["state"]) == (0, "settled"), (outcome, err)
    assert [each["did"] for each in outcome["rescues"]] == ["went on"] * 3
    assert len(ground.machines()) == 1
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])
    attended.gone()


def test_a_disk_that_is_full_here_keeps_nothing_from_being_released(
    small_disk: Path, ground: RentedGround, attended: Attended
) -> None:
    """Neither a model nor a word can be kept: the machine is ended, and told of once there is room again."""
    process = ground.start("run", ground.job("vast", steps=40, step_s=0.1), *YES, **HURRIED)
    run = attended.only()
    attended.far(run, 3)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    until(lambda: [row["state"] for row in ground.machines()] == ["terminated"], 240)
    assert process.poll() is None
    filler.unlink()
    code, outcome, err = ended(process)
    assert (code, outcome["released"]) == (5, True), (outcome, err)
    ground.assert_all_released(run, outcome["usd"]["ceiling"])
    attended.gone()


def test_a_ledger_that_is_lost_with_the_runner_loses_no_machine(ground: RentedGround, attended: Attended) -> None:
    process = ground.start("run", ground.job("runpod", steps=4000, step_s=0.1), *YES)
    run = attended.only()
    attended.far(run, 3)
    (machine,) = ground.machines()
    for file in ground.launcher.home.glob("ledger.sqlite*"):
        file.unlink()
    attended.kill(process.pid)
    process.communicate()
    attended.kill(attended.runner(run))
    for path in (*attended.dir(run).iterdir(), attended.dir(run)):
        os.utime(path, (0, 0))  # its last word was long ago
    until(lambda: ground.cloud.billed(machine["id"])["state"] == "terminated", 120)
    attended.gone()
