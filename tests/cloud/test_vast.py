"""The simulated Vast, driven by vastai-sdk."""

from __future__ import annotations

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud.conftest import Standing, command, raise_cloud
from tests.patience import until

VastAI = pytest.importorskip("vastai.sdk").VastAI
CHEAPEST, NEXT, FAST = 12345678, 12345679, 12345680


@pytest.fixture
def sdk(cloud: Standing) -> Any:
    return VastAI(api_key=cloud.env["VAST_API_KEY"], server_url=cloud.url, retry=1)


def rent(sdk: Any, offer: int = CHEAPEST, **how: Any) -> int:
    asked = {"image": "pytorch/pytorch", "disk": 40, "label": "a-label", "ssh": True, "direct": True}
    return sdk.create_instance(id=offer, **{**asked, **how})["new_contract"]


def running(sdk: Any, number: int) -> dict[str, Any]:
    return until(lambda: (row := sdk.show_instance(id=number))["actual_status"] == "running" and row)


def test_the_cheapest_offer_is_rented_by_its_id_entered_and_ended(sdk: Any, cloud: Standing, tmp_path: Path) -> None:
    rows = sdk.search_offers(query="gpu_name=RTX_4090 num_gpus=1", order="dph_total", storage=40)
    assert [row["id"] for row in rows] == [CHEAPEST, NEXT, FAST]
    assert rows[0]["dph_total"] > rows[0]["dph_base"] == 0.28
    number = rent(sdk, onstart_cmd="echo started >/root/onstart", env={"A": "b"})
    sdk.attach_ssh(instance_id=number, ssh_key=cloud.public_key)
    assert CHEAPEST not in [row["id"] for row in sdk.search_offers(query="gpu_name=RTX_4090")]
    with pytest.raises(requests.HTTPError):
        rent(sdk)  # it is taken

    row = running(sdk, number)
    assert (row["label"], row["extra_env"], row["dph_base"]) == ("a-label", {"A": "b"}, 0.28)
    assert row["dph_total"] == pytest.approx(0.28 + 0.15 * 40 / 720)
    ip, port = row["public_ipaddr"], int(row["ports"]["22/tcp"][0]["HostPort"])
    until(lambda: cloud.opens(ip, port))
    until(lambda: cloud.ssh(ip, port, "cat /root/onstart").stdout.strip() == "started")
    (tmp_path / "a").write_text("x" * 1000)
    shell = " ".join(["ssh", *cloud.ssh_options(port)])
    subprocess.run(["rsync", "-a", "-e", shell, f"{tmp_path}/a", f"root@{ip}:/workspace/"], check=True)
    assert cloud.ssh(ip, port, "wc -c </workspace/a").stdout.strip() == "1000"

    sdk.destroy_instance(id=number)
    assert sdk.show_instance(id=number) is None
    assert number not in [row["id"] for row in sdk.show_instances()]
    billed = cloud.billed(number)
    assert 0 <= Decimal(billed["gpu_usd"]) - Decimal("0.28") * billed["gpu_seconds"] / 3600 < Decimal("0.000001")
    assert Decimal(billed["disk_usd"]) > 0


def test_the_gpu_is_billed_from_running_and_the_disk_from_creation(sdk: Any, cloud: Standing) -> None:
    cloud.fault("never_boots", provider="vast")
    number = rent(sdk, FAST)
    cloud.fault("clock_jump", seconds=7200)
    assert sdk.show_instance(id=number)["actual_status"] == "loading"
    row = cloud.billed(number)
    assert (row["gpu_seconds"], Decimal(row["gpu_usd"])) == (0, 0)
    step = Decimal("0.10") * 40 / 720 / 3600
    assert abs(Decimal(row["disk_usd"]) - step * 7200) <= step * 60
    sdk.destroy_instance(id=number)


def test_a_key_can_be_attached_to_an_instance_that_runs(sdk: Any, cloud: Standing) -> None:
    number = rent(sdk)
    row = running(sdk, number)
    assert not cloud.opens(row["ssh_host"], row["ssh_port"])
    sdk.attach_ssh(instance_id=number, ssh_key=cloud.public_key)
    until(lambda: cloud.opens(row["ssh_host"], row["ssh_port"]))
    sdk.destroy_instance(id=number)


def test_the_instances_own_key_ends_nothing_unless_the_scenario_grants_it(sdk: Any, tmp_path: Path) -> None:
    cloud = raise_cloud(tmp_path / "granted", "--set", "vast.self_destroy=true")
    try:
        for where, granted in ((sdk, False), (VastAI(api_key=cloud.env["VAST_API_KEY"], server_url=cloud.url), True)):
            contract = where.create_instance(id=CHEAPEST, image="i", disk=10, label="x")
            own = VastAI(api_key=contract["instance_api_key"], server_url=where.client.server_url, retry=1)
            assert own.show_instance(id=contract["new_contract"])["label"] == "x"
            with pytest.raises(requests.HTTPError):
                own.show_instances()
            if granted:
                own.destroy_instance(id=contract["new_contract"])
            else:
                with pytest.raises(requests.HTTPError):
                    own.destroy_instance(id=contract["new_contract"])
                where.destroy_instance(id=contract["new_contract"])
            assert where.show_instances() == []
    finally:
        assert command(cloud.state, "down").returncode == 0


def test_a_listing_has_pages_and_a_user_a_balance(sdk: Any, cloud: Standing) -> None:
    numbers = {rent(sdk, CHEAPEST), rent(sdk, FAST), rent(sdk, 12345690)}
    page = sdk.show_instances_v1({"select_filters": {}, "limit": 2})
    assert (len(page["instances"]), page["total_instances"]) == (2, 3)
    assert page["next_token"]
    assert {row["id"] for row in sdk.show_instances()} == numbers
    assert sdk.show_user()["credit"] == 10.0
    for number in numbers:
        sdk.destroy_instance(id=number)
    assert json.loads(json.dumps(cloud.bill()))["machines"]


def test_a_strangers_key_is_refused(cloud: Standing) -> None:
    with pytest.raises(requests.HTTPError, match="401"):
        VastAI(api_key="not-a-key", server_url=cloud.url, retry=1).show_instances()
