"""A simulated cloud for a test, ended with it; ssh and rsync as a launcher would call them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

REPO = Path(__file__).resolve().parents[2]
ANSWER_S = 60.0  # milliseconds on a quiet machine; a busy one keeps it waiting


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


def command(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.cloud", "--state", str(state), *words]
    return subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)


@dataclass
class Standing:
    """A cloud that stands: where, and what `up` said to export."""

    state: Path
    env: dict[str, str]
    key: Path

    @property
    def url(self) -> str:
        return self.env["LAUNCHER_SIMULATED_CLOUD_URL"]

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    def fault(self, fault: str, **how: Any) -> dict[str, Any]:
        reply = requests.post(f"{self.url}/_fault", json={"fault": fault, **how}, timeout=ANSWER_S)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def bill(self) -> dict[str, Any]:
        return requests.get(f"{self.url}/_bill", timeout=ANSWER_S).json()

    def billed(self, machine: str) -> dict[str, Any]:
        return next(row for row in self.bill()["machines"] if row["id"] == str(machine))

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        rows = requests.get(f"{self.url}/_events", timeout=ANSWER_S).json()
        return [row for row in rows if not kinds or row["event"] in kinds]

    def ssh(
        self, ip: str, port: int, *words: str, user: str = "root", connect_s: int = 20
    ) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", *self.ssh_options(port, connect_s), f"{user}@{ip}", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def ssh_options(self, port: int, connect_s: int = 20) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR",
                   f"ConnectTimeout={connect_s}",
                   "ServerAliveInterval=1", "ServerAliveCountMax=8")  # fmt: skip
        return ["-i", str(self.key), "-p", str(port), *(part for option in options for part in ("-o", option))]

    def opens(self, ip: str, port: int, user: str = "root") -> bool:
        return self.ssh(ip, port, "true", user=user, connect_s=2).returncode == 0


def raise_cloud(state: Path, *words: str) -> Standing:
    done = command(state, "up", *words)
    assert done.returncode == 0, done.stderr
    rows = [line.removeprefix("export ").split("=", 1) for line in done.stdout.splitlines() if line[0] != "#"]
    env = {name: shlex.split(value.removesuffix(':"$PATH"'))[0] for name, value in rows}
    key = state.parent / f"{state.name}-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return Standing(state, env, key)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """One cloud for a module."""
    state = tmp_path_factory.mktemp("cloud") / "state"
    try:
        yield raise_cloud(state, "--seed", "7")
    finally:
        assert command(state, "down").returncode == 0


@pytest.fixture
def cloud(standing: Standing) -> Iterator[Standing]:
    """The module's cloud, without machines and faults of the test before."""
    yield standing
    standing.fault("end_all")
