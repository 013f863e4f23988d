"""The pods' layer: what SkyPilot sets up on a node is found there, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import image
from tests.cloud.conftest import Standing, command, raise_cloud
from tests.cloud.test_runpod import client, create, door, running
from tests.patience import until

__all__ = ["client"]  # an autouse fixture, here too


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    state = tmp_path_factory.mktemp("cloud") / "state"
    try:
        yield raise_cloud(state, "--seed", "11", "--providers", "runpod", "--layer", str(image.ensure()))
    finally:
        assert command(state, "down").returncode == 0


def test_each_step_of_the_set_up_finds_what_it_would_fetch(cloud: Standing) -> None:
    ip, port = door(running(create(cloud)))
    until(lambda: cloud.opens(ip, port))
    steps = (
        "test -d ~/skypilot-runtime && ~/.local/bin/uv -V",
        'VIRTUAL_ENV=~/skypilot-runtime ~/.local/bin/uv pip install "setuptools<70" "click<8.3.0"',
        "VIRTUAL_ENV=~/skypilot-runtime ~/.local/bin/uv pip list | grep '^ray *2.9.3'",
        'VIRTUAL_ENV=~/skypilot-runtime ~/.local/bin/uv run --no-project --no-config sh -c "command -v ray"',
        "~/skypilot-runtime/bin/python -c 'import ray, grpc, psutil, runpod'",
        "! ~/skypilot-runtime/bin/python -c 'import sky' 2>/dev/null",  # it comes with the launch
    )
    for step in steps:
        done = cloud.ssh(ip, port, step)
        assert done.returncode == 0, f"{step}: {done.stdout} {done.stderr}"


def test_a_layer_that_is_whole_is_not_built_again(tmp_path: Path) -> None:
    whole = tmp_path / "layer"
    whole.mkdir()
    (whole / image.STAMP).write_text(image.fingerprint())
    (whole / "kept").touch()
    assert image.ensure(whole) == whole
    assert (whole / "kept").exists()
