"""Both hosts, with a real sshd behind the one that needs it."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_sshd import SSHD, Sshd, Wire

from launcher.clock import SystemClock
from launcher.hosts import Host, LocalHost
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.link import Patience
from launcher.hosts.ssh import SshHost

PY = sys.executable
QUICK = Patience(connect_s=15, answer_s=60, stall_s=3, total_s=60, transfer_s=120)


@pytest.fixture(scope="session")
def _sshd_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sshd]]:
    if not Path(SSHD).exists() or not shutil.which("rsync"):
        pytest.skip("needs openssh-server and rsync (apt-get install openssh-server rsync)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a Debian sshd of root locks itself in
    made: list[Sshd] = []

    def make(*settings: str) -> Sshd:
        made.append(Sshd(tmp_path_factory.mktemp("sshd"), *settings))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def sshd(_sshd_runs: Callable[..., Sshd]) -> Sshd:
    """One for the tests that leave it alone."""
    return _sshd_runs()


@pytest.fixture
def new_sshd(_sshd_runs: Callable[..., Sshd]) -> Callable[..., Sshd]:
    """One that a test may stop and change, with settings of its own."""
    return _sshd_runs


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., SshHost]]:
    """A host behind a port, with keys that are admitted; one folder, however often it is connected to."""
    hosts: list[SshHost] = []

    def make(
        server: Sshd, port: int | None = None, patience: Patience = QUICK, box_python: str = PY, admitted: bool = True
    ) -> SshHost:
        keys = LeaseKeys.create(tmp_path / 'the lease\'s "keys"', "lease")
        if admitted:
            server.admit(keys.public)
        root = f"{tmp_path}/box"
        address = Address("127.0.0.1", port or server.port, getpass.getuser())
        hosts.append(SshHost(address, keys, root, PY, SystemClock(), patience=patience, box_python=box_python))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Callable[[Sshd], Wire]]:
    made: list[Wire] = []

    def make(server: Sshd) -> Wire:
        made.append(Wire(server.port))
        return made[-1]

    yield make
    for line in made:
        line.close()


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    """Either host, empty."""
    if request.param == "local":
        return LocalHost(tmp_path / "box", Path(sys.executable), SystemClock())
    return request.getfixturevalue("connect")(request.getfixturevalue("sshd"))
