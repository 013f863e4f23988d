"""`python -m tests.cloud up` as a newcomer meets it: a market, images of one's own, and what is said of mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud.conftest import REPO, Standing, command, raise_cloud
from tests.patience import until


def rent(cloud: Standing) -> tuple[str, int]:
    """A pod by REST, and where its ssh answers."""
    headers = {"Authorization": f"Bearer {cloud.env['RUNPOD_API_KEY']}"}
    body = {"name": "x", "imageName": "i", "gpuTypeIds": ["NVIDIA L40S"], "env": {"PUBLIC_KEY": cloud.public_key}}
    base = f"{cloud.url}/v1/pods"
    pod = requests.post(base, json=body, headers=headers, timeout=10).json()["id"]

    def booted() -> Any:
        row = requests.get(f"{base}/{pod}", headers=headers, timeout=10).json()
        return row["portMappings"] and row

    row = until(booted)
    until(lambda: cloud.opens(row["publicIp"], row["portMappings"]["22"]))
    return row["publicIp"], row["portMappings"]["22"]


def test_the_launchers_own_offers_come_from_the_exported_environment(cloud: Standing, tmp_path: Path) -> None:
    env = os.environ | cloud.env | {"PATH": f"{cloud.env['PATH']}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    argv = [sys.executable, "-m", "launcher", "offers", "--home", str(tmp_path), "--fresh", "--json"]
    done = subprocess.run(argv, env=env, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)
    held = json.loads(done.stdout)
    good = {source["name"] for source in held["sources"] if source["ok"]}
    assert {"vast", "runpod", "brev"} <= good, held["sources"]
    assert {"vast", "runpod", "brev"} <= {offer["provider"] for offer in held["offers"]}


def test_a_layer_is_an_image_and_a_bind_is_read_only(tmp_path: Path) -> None:
    layer, bind = tmp_path / "layer", tmp_path / "bind"
    for path, text in (
        (layer / "root/in-root", "a"),
        (layer / "usr/local/bin/tool", "#!/bin/sh\necho tool\n"),
        (bind / "b", "b"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    cloud = raise_cloud(tmp_path / "state", "--layer", str(layer), "--bind", str(bind))
    try:
        ip, port = rent(cloud)
        said = cloud.ssh(ip, port, f"cat in-root; tool; cat {bind}/b; echo c >>in-root; touch {bind}/no")
        assert said.stdout == "atool\nb"
        assert "Read-only" in said.stderr
        assert (layer / "root/in-root").read_text() == "a"
    finally:
        assert command(cloud.state, "down").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--providers", "aws"), "no such provider: aws"), (("--set", "vast.no_such=1"), "no such figure: no_such")],
)
def test_a_wrong_word_is_named(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = command(tmp_path / "state", "up", *words)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    assert command(tmp_path / "state", "down").returncode == 0
