"""The simulated RunPod, driven by the runpod package and the queries that SkyPilot writes."""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud.conftest import Standing
from tests.patience import until

runpod = pytest.importorskip("runpod")
L40S = "NVIDIA L40S"


@pytest.fixture(autouse=True)
def client(cloud: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_BASE_URL", cloud.url)
    monkeypatch.setattr(runpod, "api_key", cloud.env["RUNPOD_API_KEY"])


def create(cloud: Standing, **how: Any) -> str:
    asked = {"gpu_type_id": L40S, "cloud_type": "SECURE", "ports": "22/tcp,8265/http", "container_disk_in_gb": 60}
    return runpod.create_pod("a-label", "runpod/base", **{**asked, "env": {"PUBLIC_KEY": cloud.public_key}, **how})[
        "id"
    ]


def running(pod: str) -> dict[str, Any]:
    return until(lambda: (held := runpod.get_pod(pod)) and held["runtime"] and held)


def door(pod: dict[str, Any]) -> tuple[str, int]:
    port = next(port for port in pod["runtime"]["ports"] if port["privatePort"] == 22)
    assert port["isIpPublic"]
    return port["ip"], port["publicPort"]


def test_a_pod_boots_answers_over_ssh_takes_files_and_ends(cloud: Standing, tmp_path: Path) -> None:
    pod = create(cloud)
    held = running(pod)
    assert (held["name"], held["costPerHr"], held["desiredStatus"]) == ("a-label", 0.86, "RUNNING")
    ip, port = door(held)
    assert port != 22
    until(lambda: cloud.opens(ip, port))
    assert cloud.ssh(ip, port, "hostname; id -un").stdout.split() == [pod, "root"]

    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.txt").write_text("data")
    shell = " ".join(["ssh", *cloud.ssh_options(port)])
    subprocess.run(["rsync", "-a", "-e", shell, f"{tmp_path}/up/", f"root@{ip}:/workspace/"], check=True)
    subprocess.run(["rsync", "-a", "-e", shell, f"root@{ip}:/workspace/", f"{tmp_path}/down/"], check=True)
    assert (tmp_path / "down" / "a.txt").read_text() == "data"

    runpod.terminate_pod(pod)
    assert runpod.get_pod(pod) is None
    assert pod not in {row["id"] for row in runpod.get_pods()}
    assert not cloud.opens(ip, port)
    row = cloud.billed(pod)
    assert (row["state"], row["bills"]) == ("terminated", False)
    expected = Decimal("0.86") * row["gpu_seconds"] / 3600
    assert abs(Decimal(row["gpu_usd"]) - expected) < Decimal("0.000001")
    lived = [event["at"] for event in cloud.events("created", "terminated") if event["machine"] == pod]
    assert len(lived) == 2


def test_a_command_of_its_own_runs_in_place_of_the_images(cloud: Standing) -> None:
    """As SkyPilot sends it: it starts the ssh server itself."""
    kind, public, *_ = cloud.public_key.split()
    script = f"mkdir -p ~/.ssh; echo {kind} {public} >>~/.ssh/authorized_keys; service ssh restart; sleep infinity"
    pod = create(cloud, docker_args=f"bash -c '{script}'", env=None)
    ip, port = door(running(pod))
    until(lambda: cloud.opens(ip, port))
    runpod.terminate_pod(pod)


def test_a_pods_own_key_ends_that_pod_alone(cloud: Standing) -> None:
    pod, other = create(cloud), create(cloud)
    ip, port = door(running(pod))
    until(lambda: cloud.opens(ip, port))
    ask = ('. /etc/rp_environment; '
           'curl -sS -H "Authorization: Bearer $RUNPOD_API_KEY" -H "Content-Type: application/json" '
           '-d "{\\"query\\": \\"%s\\"}" "$RUNPOD_API_BASE_URL/graphql"')  # fmt: skip
    refused = cloud.ssh(ip, port, ask % f'mutation {{ podTerminate(input: {{podId: \\\\\\"{other}\\\\\\"}}) }}')
    assert "scoped" in refused.stdout
    assert "scoped" in cloud.ssh(ip, port, ask % "query { myself { pods { id } } }").stdout
    cloud.ssh(ip, port, ask % f'mutation {{ podTerminate(input: {{podId: \\\\\\"{pod}\\\\\\"}}) }}')
    assert {row["id"] for row in runpod.get_pods()} == {other}
    runpod.terminate_pod(other)


def test_skypilots_own_functions_list_launch_and_remove(cloud: Standing) -> None:
    utils = pytest.importorskip("sky.provision.runpod.utils")
    pod = utils.launch(
        "c1", "head", "1x_L40S_SECURE", "US", None, 60, "runpod/base", None, cloud.public_key, False, 0.0, None,
    )  # fmt: skip
    try:
        row = until(lambda: (held := utils.list_instances()[pod]).get("ssh_port") and held)
        assert (row["name"], row["status"]) == ("c1-head", "RUNNING")
        assert row["internal_ip"] == row["external_ip"]
        until(lambda: cloud.opens(row["external_ip"], row["ssh_port"]))
        assert utils.get_registry_auth_resources("c1") == (None, None)
    finally:
        utils.remove(pod)
    assert pod not in utils.list_instances()


def test_what_is_for_sale_has_prices_and_stock(cloud: Standing) -> None:
    assert L40S in {row["id"] for row in runpod.get_gpus()}
    assert runpod.get_gpu(L40S)["securePrice"] == 0.86
    cloud.fault("sold_out", offer=f"{L40S}/secure", count="always")
    price = "s: lowestPrice(input: {gpuCount: 1, secureCloud: true}) { stockStatus }"
    query = f'{{ gpuTypes(input: {{id: "{L40S}"}}) {{ {price} }} }}'
    asked = requests.post(f"{cloud.url}/graphql", json={"query": query}, timeout=10).json()
    assert asked["data"]["gpuTypes"][0]["s"]["stockStatus"] is None
    with pytest.raises(runpod.error.QueryError, match="no longer any instances"):
        create(cloud)
    runpod.terminate_pod(create(cloud, cloud_type="COMMUNITY"))


def test_a_strangers_key_and_an_unknown_pod_are_refused(cloud: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(runpod.error.QueryError, match="not found"):
        runpod.terminate_pod("nothing")
    monkeypatch.setattr(runpod, "api_key", "rpa_of_somebody")
    with pytest.raises(runpod.error.AuthenticationError):
        runpod.get_pods()


def test_rest_creates_lists_and_deletes(cloud: Standing) -> None:
    base, headers = f"{cloud.url}/v1/pods", {"Authorization": f"Bearer {cloud.env['RUNPOD_API_KEY']}"}
    body = {
        "name": "by-rest",
        "imageName": "runpod/base",
        "gpuTypeIds": [L40S],
        "env": {"PUBLIC_KEY": cloud.public_key},
    }
    pod = requests.post(base, json=body, headers=headers, timeout=10).json()["id"]
    held = until(
        lambda: (row := requests.get(f"{base}/{pod}", headers=headers, timeout=10).json())["portMappings"] and row
    )
    until(lambda: cloud.opens(held["publicIp"], held["portMappings"]["22"]))
    assert [row["id"] for row in requests.get(base, headers=headers, timeout=10).json()] == [pod]
    assert requests.delete(f"{base}/{pod}", headers=headers, timeout=10).status_code == 204
    assert requests.get(f"{base}/{pod}", headers=headers, timeout=10).status_code == 404
