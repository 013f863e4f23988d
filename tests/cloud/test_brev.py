"""The simulated Brev, driven through its command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud.conftest import Standing
from tests.patience import until


@pytest.fixture
def brev(cloud: Standing, tmp_path: Path) -> Any:
    env = os.environ | cloud.env | {"PATH": f"{cloud.env['PATH']}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["brev", *words], env=env, capture_output=True, text=True, check=False, timeout=60)

    return run


def listed(brev: Any) -> list[dict[str, Any]]:
    done = brev("ls", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["workspaces"] or []


def test_an_instance_is_made_entered_and_deleted_in_its_own_time(brev: Any, cloud: Standing, tmp_path: Path) -> None:
    assert brev("create", "box1", "--type", "l40s-48gb.1x", "--detached").stdout == "box1\n"
    assert [row["name"] for row in listed(brev)] == ["box1"]
    row = until(lambda: next((row for row in listed(brev) if row["shell_status"] == "READY"), None))
    assert (row["instance_type"], row["build_status"], row["instance_kind"]) == ("l40s-48gb.1x", "COMPLETED", "gpu")
    until(lambda: brev("exec", "box1", "true").returncode == 0)
    assert brev("exec", "box1", "id -un").stdout.strip() == "ubuntu"
    (tmp_path / "a").write_text("data")
    config = tmp_path / ".brev" / "ssh_config"
    subprocess.run(["rsync", "-a", "-e", f"ssh -F {config}", f"{tmp_path}/a", "box1:b"], check=True)
    assert brev("copy", "box1:b", str(tmp_path / "c")).returncode == 0
    assert (tmp_path / "c").read_text() == "data"

    assert "few minutes" in brev("delete", "box1").stdout
    until(lambda: listed(brev) == [])
    billed = next(row for row in cloud.bill()["machines"] if row["label"] == "box1")
    assert (billed["billing_step_s"], billed["gpu_seconds"] % 60, billed["bills"]) == (60, 0, False)


def test_a_list_of_types_falls_back_without_a_word_on_stdout(brev: Any, cloud: Standing) -> None:
    cloud.fault("sold_out", provider="brev", offer="l40s-48gb.1x")
    done = brev("create", "box2", "--type", "l40s-48gb.1x,g6e.xlarge", "--detached")
    assert (done.returncode, done.stdout) == (0, "box2\n")
    assert listed(brev)[0]["instance_type"] == "g6e.xlarge"
    brev("delete", "box2")


def test_a_machine_that_is_not_ready_in_time_is_left_with_exit_code_0(brev: Any, cloud: Standing) -> None:
    cloud.fault("never_boots", provider="brev")
    done = brev("create", "box3", "--type", "g6e.xlarge", "--timeout", "1")
    assert (done.returncode, "timed out" in done.stderr) == (0, True)
    assert [(row["name"], row["status"]) for row in listed(brev)] == [("box3", "DEPLOYING")]
    brev("delete", "box3")


def test_types_are_listed_without_a_login_and_all_else_is_refused(brev: Any, cloud: Standing) -> None:
    rows = json.loads(brev("search", "gpu", "--gpu-name", "L40S", "--sort", "price", "--json").stdout)
    assert [row["price_per_hour"] for row in rows] == [1.50, 1.861]
    items = requests.get(f"{cloud.url}/v1/instance/types", timeout=10).json()["items"]
    assert {item["type"] for item in items} == {row["type"] for row in rows}
    assert requests.get(f"{cloud.url}/brev/instances", timeout=10).status_code == 401


def test_a_stopped_instance_goes_on_billing_its_disk(brev: Any, cloud: Standing) -> None:
    brev("create", "box4", "--type", "g6e.xlarge", "--detached")
    until(lambda: next(row for row in listed(brev) if row["name"] == "box4")["status"] == "RUNNING")
    brev("stop", "box4")
    assert next(row for row in listed(brev) if row["name"] == "box4")["status"] == "STOPPED"
    before = next(row for row in cloud.bill()["machines"] if row["label"] == "box4")
    cloud.fault("clock_jump", seconds=86400)
    after = next(row for row in cloud.bill()["machines"] if row["label"] == "box4")
    assert after["gpu_usd"] == before["gpu_usd"]
    assert float(after["disk_usd"]) - float(before["disk_usd"]) == pytest.approx(0.10 * 120 * 24 / 730, rel=0.01)
    brev("delete", "box4")
