"""Every fault does what it says, once or as often as it was told, and to the provider that it names."""

from __future__ import annotations

import json
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud.conftest import Standing
from tests.cloud.faults import FAULTS
from tests.patience import until

runpod = pytest.importorskip("runpod")
VastAI = pytest.importorskip("vastai.sdk").VastAI
L40S = "NVIDIA L40S"


@pytest.fixture(autouse=True)
def client(cloud: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_BASE_URL", cloud.url)
    monkeypatch.setattr(runpod, "api_key", cloud.env["RUNPOD_API_KEY"])


@pytest.fixture
def fault(cloud: Standing) -> Any:
    def script(name: str, **how: Any) -> dict[str, Any]:
        return cloud.fault(name, **{"provider": "runpod", **how})

    return script


def create(cloud: Standing, label: str = "a-label") -> str:
    env = {"PUBLIC_KEY": cloud.public_key}
    return runpod.create_pod(label, "i", L40S, cloud_type="SECURE", ports="22/tcp", env=env)["id"]


def ids() -> set[str]:
    return {row["id"] for row in runpod.get_pods()}


def door(cloud: Standing, pod: str) -> tuple[str, int]:
    port = until(lambda: runpod.get_pod(pod)["runtime"])["ports"][0]
    return port["ip"], port["publicPort"]


def opened(cloud: Standing, pod: str) -> tuple[str, int]:
    ip, port = door(cloud, pod)
    until(lambda: cloud.opens(ip, port))
    return ip, port


@pytest.fixture
def pod(cloud: Standing) -> Any:
    pod = create(cloud)
    yield pod
    if pod in ids():
        runpod.terminate_pod(pod)


def test_a_create_that_answers_500_has_created_and_bills(cloud: Standing, fault: Any) -> None:
    fault("error_after_create")
    with pytest.raises(requests.JSONDecodeError):
        create(cloud, "lost")
    found = next(row for row in runpod.get_pods() if row["name"] == "lost")
    assert cloud.billed(found["id"])["bills"]
    runpod.terminate_pod(found["id"])
    runpod.terminate_pod(create(cloud))  # once is once


def test_a_create_that_never_answers_has_created(cloud: Standing, fault: Any) -> None:
    fault("timeout_after_create", provider="vast")
    sdk = VastAI(api_key=cloud.env["VAST_API_KEY"], server_url=cloud.url, retry=1)
    sdk.client.timeout = 0.5
    with pytest.raises(requests.ReadTimeout):
        sdk.create_instance(id=12345678, image="i", disk=10, label="lost")
    sdk.client.timeout = 60
    row = next(row for row in sdk.show_instances() if row["label"] == "lost")
    sdk.destroy_instance(id=row["id"])


def test_a_failed_create_has_created_nothing(cloud: Standing, fault: Any) -> None:
    fault("error", operation="create")
    with pytest.raises(requests.JSONDecodeError):
        create(cloud, "never")
    assert "never" not in {row["name"] for row in runpod.get_pods()}


def test_a_new_machine_is_neither_listed_nor_found_for_a_while(cloud: Standing, fault: Any) -> None:
    fault("listing_lag", seconds=600)
    pod = create(cloud)
    assert pod not in ids()
    assert runpod.get_pod(pod) is None
    assert cloud.billed(pod)["bills"]
    cloud.fault("clock_jump", seconds=601)
    assert pod in ids()
    runpod.terminate_pod(pod)


def test_a_listing_lies_in_four_ways_and_then_tells_the_truth(cloud: Standing, fault: Any, pod: str) -> None:
    other = create(cloud)
    fault("empty_list")
    assert ids() == set()
    fault("partial_list")
    assert len(ids()) == 1
    fault("wrong_account")
    assert ids() == {"strangers0pod00"}
    fault("malformed_list")
    with pytest.raises(requests.JSONDecodeError):
        runpod.get_pods()
    assert ids() == {pod, other}
    runpod.terminate_pod(other)


def test_a_call_is_refused_for_being_too_many_or_a_strangers(cloud: Standing, fault: Any) -> None:
    fault("rate_limited", operation="list", count=2, skip=1)
    headers = {"Authorization": f"Bearer {cloud.env['RUNPOD_API_KEY']}"}

    def asked() -> requests.Response:
        return requests.post(f"{cloud.url}/graphql", json={"query": "{ myself { id } }"}, headers=headers, timeout=10)

    said = [asked() for _ in range(4)]
    assert [reply.status_code for reply in said] == [200, 429, 429, 200]
    assert said[1].headers["Retry-After"] == "1"
    fault("unauthorized")
    with pytest.raises(runpod.error.AuthenticationError):
        runpod.get_pods()
    assert VastAI(api_key=cloud.env["VAST_API_KEY"], server_url=cloud.url).show_instances() == []


def test_the_price_changes_at_the_moment_of_renting(cloud: Standing, fault: Any) -> None:
    fault("price_change", factor=2)
    pod = create(cloud)
    assert runpod.get_pod(pod)["costPerHr"] == 1.72
    assert cloud.billed(pod)["usd_per_hour"] == "1.72"
    runpod.terminate_pod(pod)


def test_an_offer_is_sold_out_once(cloud: Standing, fault: Any) -> None:
    fault("sold_out", offer=f"{L40S}/secure")
    with pytest.raises(runpod.error.QueryError, match="no longer any"):
        create(cloud)
    runpod.terminate_pod(create(cloud))


def test_a_machine_never_boots_and_another_never_opens_ssh_and_both_bill(cloud: Standing, fault: Any) -> None:
    fault("never_boots")
    silent = create(cloud)
    fault("never_ssh")
    deaf = create(cloud)
    ip, port = door(cloud, deaf)
    assert not cloud.opens(ip, port)
    assert runpod.get_pod(silent)["runtime"] is None
    for pod in (silent, deaf):
        assert cloud.billed(pod)["bills"]
        runpod.terminate_pod(pod)


@pytest.mark.parametrize("delay_ms", [0, 40])
def test_a_slow_link_is_slow_both_ways(cloud: Standing, fault: Any, pod: str, delay_ms: float) -> None:
    ip, port = opened(cloud, pod)
    sent = b"\0" * 1_000_000
    argv = ["ssh", *cloud.ssh_options(port), f"root@{ip}"]
    with subprocess.Popen([*argv, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as before:
        assert before.stdin
        assert before.stdout
        before.stdin.write(b"open\n")
        before.stdin.flush()
        assert before.stdout.readline() == b"open\n"
        fault("slow_link", machine=pod, mbit=8, delay_ms=delay_ms)
        before.stdin.write(b"still open\n")
        before.stdin.flush()
        assert before.stdout.readline() == b"still open\n"  # what was connected stays so
        before.stdin.close()
    for command, given in (("head -c 1000000 /dev/zero", b""), ("cat >/dev/null", sent)):
        start = time.monotonic()
        done = subprocess.run([*argv, command], input=given, capture_output=True, check=True)
        assert len(done.stdout) == (0 if given else len(sent))
        assert time.monotonic() - start > 0.8  # 8 Mbit at 8 Mbit/s: no machine, however fast, is faster
    if delay_ms:
        ping = cloud.ssh(ip, port, f"python3 -c '{RING}' {json.dumps(cloud.url)}")
        assert float(ping.stdout) > 2 * delay_ms / 1000


# Seconds until this machine's server has taken a connection: one way there and one way back.
RING = (
    'import os, socket, time; url = os.popen(". /etc/rp_environment; echo $RUNPOD_API_BASE_URL").read().strip()[7:];'
    'start = time.time(); socket.create_connection(url.split(":")); print(time.time() - start)'
)


def test_a_partition_cuts_the_machine_off_until_it_is_healed(cloud: Standing, fault: Any, pod: str) -> None:
    ip, port = opened(cloud, pod)
    fault("partition", machine=pod)
    assert not cloud.opens(ip, port)
    assert runpod.get_pod(pod)["desiredStatus"] == "RUNNING"
    fault("heal", machine=pod)
    until(lambda: cloud.opens(ip, port))


def test_a_host_dies_and_its_provider_does_not_notice(cloud: Standing, fault: Any, pod: str) -> None:
    ip, port = opened(cloud, pod)
    fault("host_death", machine=pod)
    until(lambda: cloud.events("host_died"))
    assert not cloud.opens(ip, port)
    assert runpod.get_pod(pod)["desiredStatus"] == "RUNNING"
    assert cloud.billed(pod)["bills"]


def test_a_disk_is_full(cloud: Standing, fault: Any, pod: str) -> None:
    ip, port = opened(cloud, pod)
    fault("disk_full", machine=pod)
    done = cloud.ssh(ip, port, "dd if=/dev/zero of=/workspace/x bs=1M count=5")
    assert "No space left" in done.stderr


def test_a_delete_is_refused_twice_and_then_done(cloud: Standing, fault: Any, pod: str) -> None:
    fault("delete_refused", count=2)
    for _ in range(2):
        with pytest.raises(requests.JSONDecodeError):
            runpod.terminate_pod(pod)
        assert cloud.billed(pod)["bills"]
    runpod.terminate_pod(pod)
    assert runpod.get_pod(pod) is None


def test_a_delete_is_accepted_and_not_done(cloud: Standing, fault: Any, pod: str) -> None:
    fault("delete_ignored")
    runpod.terminate_pod(pod)
    assert pod in ids()
    assert cloud.billed(pod)["bills"]
    runpod.terminate_pod(pod)
    assert pod not in ids()


def test_the_providers_clock_jumps_and_its_bill_with_it(cloud: Standing, fault: Any, pod: str) -> None:
    before = cloud.billed(pod)
    fault("clock_jump", seconds=3600)
    after = cloud.billed(pod)
    gained = Decimal(after["gpu_usd"]) - Decimal(before["gpu_usd"])
    assert Decimal("0.86") <= gained < Decimal("0.87")


def test_an_unknown_fault_names_those_that_there_are(cloud: Standing) -> None:
    reply = requests.post(f"{cloud.url}/_fault", json={"fault": "plague"}, timeout=10)
    assert (reply.status_code, "sold_out" in json.dumps(reply.json())) == (400, True)
    assert "takes" in requests.post(f"{cloud.url}/_fault", json={"fault": "sold_out", "x": 1}, timeout=10).text


def test_no_fault_is_without_its_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in FAULTS if f'fault("{name}"' not in text] == []
