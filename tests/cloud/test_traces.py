"""`down` leaves nothing of a cloud, however it ended; and machines are apart from this one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import requests

from tests.cloud.conftest import Standing, command, raise_cloud
from tests.cloud.machine import call, pids_of
from tests.patience import until


def mounts(state: Path) -> set[str]:
    """What is mounted here under a cloud's folder: other tests mount theirs at the same time."""
    found = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    return {place for place in found if place.startswith(f"{state}/")}


def devices(bridge: str) -> list[str]:
    """The bridge of a cloud, and the cables in it."""
    return [
        entry.name for entry in Path("/sys/class/net").iterdir() if re.fullmatch(f"{bridge}(v[0-9]+)?", entry.name)
    ]


def held_by(cloud: Standing) -> dict[str, Any]:
    return json.loads((cloud.state / "cloud.json").read_text())


def rent(cloud: Standing) -> tuple[str, int]:
    """A pod with a process that has left its session, in a cloud of its own."""
    env = f'[{{key: "PUBLIC_KEY", value: "{cloud.public_key}"}}]'
    asked = f'name: "x", imageName: "i", gpuTypeId: "NVIDIA L40S", cloudType: SECURE, ports: "22/tcp", env: {env}'
    headers = {"Authorization": f"Bearer {cloud.env['RUNPOD_API_KEY']}"}

    def ask(query: str) -> Any:
        return requests.post(f"{cloud.url}/graphql", json={"query": query}, headers=headers, timeout=10).json()[
            "data"
        ]

    pod = ask(f"mutation {{ podFindAndDeployOnDemand(input: {{{asked}}}) {{ id }} }}")["podFindAndDeployOnDemand"][
        "id"
    ]
    query = f'{{ pod(input: {{podId: "{pod}"}}) {{ runtime {{ ports {{ ip publicPort }} }} }} }}'
    port = until(lambda: ask(query)["pod"]["runtime"])["ports"][0]
    until(lambda: cloud.opens(port["ip"], port["publicPort"]))
    cloud.ssh(port["ip"], port["publicPort"], "setsid nohup sleep 1000 >/dev/null 2>&1 </dev/null & echo")
    return port["ip"], port["publicPort"]


def test_down_leaves_no_namespace_mount_process_or_device(tmp_path: Path) -> None:
    cloud = raise_cloud(tmp_path / "state")
    rent(cloud)
    held = held_by(cloud)
    here = Path("/proc/self/ns/net").readlink()
    inside = [Path(f"/proc/{pid}/ns/net") for pid in pids_of(held["mark"])]
    spaces = {space.readlink() for space in inside} - {here}
    assert len(spaces) == 1
    # held open: its number is given to no namespace of another test, which may begin at any time
    with next(space for space in inside if space.readlink() in spaces).open("rb"):
        down_leaves_nothing(cloud, held)
        assert not spaces & namespaces()


def down_leaves_nothing(cloud: Standing, held: dict[str, Any]) -> None:
    assert len(devices(held["bridge"])) == 2
    assert mounts(cloud.state) == set()  # a machine's mounts are its own
    assert command(cloud.state, "down").stdout.strip() == "nothing is left"
    assert (list(pids_of(held["mark"])), devices(held["bridge"]), mounts(cloud.state)) == ([], [], set())
    assert not cloud.state.exists()
    assert f"{held['prefix']}." not in call("ip", "route")


def test_down_after_a_kill_of_the_server_leaves_nothing_either(tmp_path: Path) -> None:
    cloud = raise_cloud(tmp_path / "state")
    ip, port = rent(cloud)
    held = held_by(cloud)
    os.kill(held["pid"], signal.SIGKILL)
    until(lambda: held["pid"] not in set(pids_of(held["mark"])))
    assert cloud.opens(ip, port)  # as at a real provider: the machines do not care
    assert command(cloud.state, "down").stdout.strip() == "nothing is left"
    assert (list(pids_of(held["mark"])), devices(held["bridge"]), mounts(cloud.state)) == ([], [], set())
    assert not cloud.state.exists()
    assert command(cloud.state, "down").returncode == 0  # and again


def namespaces() -> set[Path]:
    """The network namespace of every process."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                found.add((entry / "ns/net").readlink())
    return found


def test_a_machine_sees_nothing_of_this_one_and_changes_nothing_here(tmp_path: Path) -> None:
    secret = tmp_path / "secret-of-this-machine"
    secret.write_text("a key")
    before = {path: path.read_bytes() for path in map(Path, ("/etc/passwd", "/etc/hosts", "/etc/ssh/sshd_config"))}
    cloud = raise_cloud(tmp_path / "state")
    try:
        ip, port = rent(cloud)
        root = cloud.ssh(
            ip, port, "ls / /root /home /tmp /mnt; find / -xdev -name 'secret-of-this*'; ls -A /work /boot"
        ).stdout
        assert "secret-of-this" not in root
        assert not {"work", "boot", "old_root", "launcher"} & set(root.split())
        changes = "echo x >>/etc/passwd; echo x >/etc/hosts; rm -f /etc/ssh/sshd_config /usr/bin/rsync; kill -9 -1"
        cloud.ssh(ip, port, changes)
        assert {path: path.read_bytes() for path in before} == before
        assert Path("/usr/bin/rsync").exists()
        assert os.getpid() not in set(pids_of(held_by(cloud)["mark"]))
    finally:
        assert command(cloud.state, "down").returncode == 0


def test_two_clouds_stand_side_by_side_and_the_same_seed_gives_the_same_ids(tmp_path: Path) -> None:
    clouds = [raise_cloud(tmp_path / name, "--seed", "3") for name in ("a", "b")]
    try:
        assert clouds[0].env["RUNPOD_API_KEY"] == clouds[1].env["RUNPOD_API_KEY"]
        doors = [rent(cloud) for cloud in clouds]
        assert doors[0][0] != doors[1][0]
        assert doors[0][1] == doors[1][1]
        ids = [cloud.bill()["machines"][0]["id"] for cloud in clouds]
        assert ids[0] == ids[1]
        again = command(clouds[0].state, "up")
        assert (again.returncode, "stands already" in again.stderr) == (2, True)
    finally:
        assert [command(cloud.state, "down").returncode for cloud in clouds] == [0, 0]
