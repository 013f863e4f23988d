"""Transfers share one connection; it ends with its host, with its process, and is never missed."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from real_sshd import Sshd, Wire

from launcher.hosts.ssh import SshHost
from tests.patience import until

Connect = Callable[..., SshHost]

#: A process that holds a shared line and says the id of its ssh.
HOLDER = """
import sys, time
from pathlib import Path
from launcher.clock import SystemClock
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.ssh import SshHost
folder, port, user, root, source = sys.argv[1:]
host = SshHost(Address("127.0.0.1", int(port), user), LeaseKeys(Path(folder)), root, sys.executable, SystemClock(),
               box_python=sys.executable)
host.put(Path(source), "sent")
print(host._line._master.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(os.urandom(1 << 16))
    return path


def sockets(host: SshHost) -> list[Path]:
    return list(host._keys.folder.glob("shared-*"))


def test_all_transfers_of_a_host_take_one_connection(
    connect: Connect, sshd: Sshd, wire: Callable[[Sshd], Wire], clip: Path, tmp_path: Path
) -> None:
    line = wire(sshd)
    host = connect(sshd, line.port)
    for name in ("a", "b", "c"):
        host.put(clip, name)
        host.get(name, tmp_path / name)
        assert (tmp_path / name).read_bytes() == clip.read_bytes()
    assert line.calls == 2  # one for requests, one for transfers
    assert len(sockets(host)) == 1 and sockets(host)[0].stat().st_mode & 0o077 == 0


def test_a_line_that_was_cut_is_opened_anew_by_the_next_transfer(
    connect: Connect, sshd: Sshd, wire: Callable[[Sshd], Wire], clip: Path
) -> None:
    line = wire(sshd)
    host = connect(sshd, line.port)
    host.put(clip, "a")
    line.cut()
    host.put(clip, "b")
    assert Path(host.path("b")).read_bytes() == clip.read_bytes()
    assert line.calls == 4


def test_closing_the_host_hangs_up_and_leaves_no_socket(connect: Connect, sshd: Sshd, clip: Path) -> None:
    host = connect(sshd)
    host.put(clip, "a")
    held = host._line._master
    assert held is not None and held.poll() is None
    host.close()
    assert held.poll() is not None and sockets(host) == []
    host.put(clip, "b")
    assert Path(host.path("b")).exists()


def test_it_ends_with_a_process_that_is_killed(connect: Connect, sshd: Sshd, clip: Path) -> None:
    host = connect(sshd)
    where = [str(host._keys.folder), str(sshd.port), getpass.getuser(), host.root, str(clip)]
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, *where], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    master = int(holder.stdout.readline())
    assert Path(f"/proc/{master}/cmdline").read_bytes().startswith(b"ssh\0")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    until(lambda: not Path(f"/proc/{master}/exe").exists())


def test_a_machine_that_admits_one_session_a_connection_gets_a_connection_for_each_transfer(
    connect: Connect, new_sshd: Callable[..., Sshd], clip: Path, tmp_path: Path
) -> None:
    host = connect(new_sshd("Match all", "MaxSessions 1"))
    host.put(clip, "a")
    host.get("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == clip.read_bytes()


def test_a_folder_with_a_long_name_is_no_hindrance(sshd: Sshd, tmp_path: Path, clip: Path) -> None:
    from launcher.clock import SystemClock
    from launcher.hosts.lease_keys import Address, LeaseKeys

    keys = LeaseKeys.create(tmp_path / ("long " * 20) / "lease")
    sshd.admit(keys.public)
    address = Address("127.0.0.1", sshd.port, getpass.getuser())
    host = SshHost(address, keys, f"{tmp_path}/box", sys.executable, SystemClock(), box_python=sys.executable)
    host.put(clip, "a")
    assert len(sockets(host)) == 1
    host.close()
