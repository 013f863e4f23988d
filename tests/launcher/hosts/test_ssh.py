"""Whose keys are used, whose configuration is not, and what is said when a machine lacks what is needed."""

import base64
import os
import signal
import socket
import stat
import subprocess
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from real_sshd import Sshd, Wire, at_once

from launcher.clock import SystemClock
from launcher.hosts import HostError, HostKeyChangedError, HostUnreachableError
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.link import Lost, Patience, _between
from launcher.hosts.rsync import rsync
from launcher.hosts.ssh import SshHost
from tests.patience import until

Connect = Callable[..., SshHost]
BRIEF = Patience(connect_s=15, answer_s=60, stall_s=2, total_s=1, transfer_s=60)


def test_each_lease_has_a_pair_of_its_own_that_only_its_owner_reads(tmp_path: Path) -> None:
    one, other = (LeaseKeys.create(tmp_path / name) for name in ("one", "other"))
    assert one.public.startswith("ssh-ed25519 ")
    assert one.public != other.public
    assert stat.S_IMODE(one.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    assert LeaseKeys.create(tmp_path / "one").public == one.public
    one.destroy()
    assert not one.private.exists()


def test_the_first_contact_pins_the_key_for_fabric_and_rsync_alike(connect: Connect, sshd: Sshd) -> None:
    host = connect(sshd)
    assert host._keys.pinned is None
    host.status("train")
    assert sshd.host_key.startswith(host._keys.pinned)


@pytest.mark.parametrize("kinds", [["rsa"], ["ecdsa"], ["rsa", "ecdsa", "ed25519"]], ids="+".join)
def test_the_first_key_is_good_for_fabric_and_rsync_whatever_kinds_the_machine_has(
    connect: Connect, new_sshd: Callable[..., Sshd], tmp_path: Path, kinds: list[str]
) -> None:
    for kind in kinds[1:]:
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(tmp_path / kind)], check=True)
    server = new_sshd(*(f"HostKey {tmp_path / kind}" for kind in kinds[1:]))
    server.stop()
    server.new_host_key(kinds[0])
    server.start()
    (tmp_path / "file").write_text("x")
    for _ in range(2):
        connect(server).put(tmp_path / "file", "file")


def test_a_machine_that_never_stops_talking_does_not_fill_our_memory(
    connect: Connect, sshd: Sshd, tmp_path: Path
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexec yes answer-\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(HostUnreachableError, match="broke off"):
        connect(sshd, patience=BRIEF, box_python=str(tmp_path / "python")).status("train")


def test_an_answer_that_unpacks_without_end_is_no_answer() -> None:
    bomb = base64.b64encode(zlib.compress(b'{"a": "' + b"x" * (100 << 20) + b'"}')).decode()
    assert _between(f"mark:{bomb}.", "mark:") is None


def test_a_key_told_by_the_provider_is_believed_over_the_machine(
    connect: Connect, sshd: Sshd, tmp_path: Path
) -> None:
    told = LeaseKeys.create(tmp_path / "another").public
    host = connect(sshd)
    host._keys.pin(told)
    with pytest.raises(HostKeyChangedError):
        host.status("train")
    host._keys.pin(told + " a comment")
    with pytest.raises(HostKeyChangedError):
        host._keys.pin(sshd.host_key)


def test_rsync_itself_refuses_another_host_key(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    host = connect(sshd)
    host._keys.pin(LeaseKeys.create(tmp_path / "another").public)
    with pytest.raises(HostKeyChangedError):
        rsync(host._keys, BRIEF, ["--", "lease:/etc/hostname", str(tmp_path / "got")], 30)
    assert not (tmp_path / "got").exists()


def test_nobodys_configuration_agent_or_keys_are_used(
    connect: Connect, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    trap = f"Host *\n  ProxyCommand touch {tmp_path}/trapped\n  Port 1\n  User nobody\n"
    (home / ".ssh" / "config").write_text(trap)
    (home / ".fabric.yaml").write_text("user: nobody\nport: 1\nconnect_kwargs: {password: guess}\n")
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(str(tmp_path / "agent"))
    agent.listen()
    agent.setblocking(False)
    for name, value in {"HOME": home, "SSH_AUTH_SOCK": tmp_path / "agent", "FABRIC_USER": "nobody"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(home)
    (home / "fabric.yaml").write_text("user: nobody\n")
    host = connect(sshd)
    (tmp_path / "file").write_text("x")
    host.put(tmp_path / "file", "file")
    assert host.read("file") == b"x"
    assert not (tmp_path / "trapped").exists()
    with pytest.raises(BlockingIOError):
        agent.accept()


def test_a_key_that_is_not_admitted_asks_for_no_password(connect: Connect, sshd: Sshd) -> None:
    with pytest.raises(HostUnreachableError, match="does not accept this lease's key"):
        connect(sshd, patience=BRIEF, admitted=False).status("train")


def test_a_machine_without_rsync_is_told_apart_from_a_lost_one(
    connect: Connect, new_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    host = connect(new_sshd("SetEnv PATH=/nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"has no rsync.*apt-get install -y rsync"):
        host.put(tmp_path / "file", "file")


def test_a_machine_without_python_is_told_apart_from_a_lost_one(connect: Connect, sshd: Sshd) -> None:
    with pytest.raises(HostError, match="cannot start no-such-python"):
        connect(sshd, box_python="no-such-python").status("train")


def test_a_shell_that_greets_is_heard_through_and_named_where_it_cannot_be(
    connect: Connect, new_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    host = connect(new_sshd('ForceCommand echo Welcome to the machine; exec sh -c "$SSH_ORIGINAL_COMMAND"'))
    assert host.status("train").state == "absent"
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="is your shell clean"):
        host.put(tmp_path / "file", "file")


def test_what_the_machine_refuses_is_said_with_its_reason(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    host = connect(sshd)
    Path(host.root).mkdir()
    Path(host.path("taken")).touch()
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"Not a directory|File exists"):
        host.put(tmp_path / "file", "taken/file")


def test_a_link_to_audio_that_is_gone_is_named(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "a.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(HostError, match=r"no referent.*a\.wav"):
        connect(sshd).put(tmp_path / "bundle", "bundle")


def test_links_travel_as_what_they_name(connect: Connect, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"audio")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "a.wav").symlink_to(tmp_path / "a.wav")
    host = connect(sshd)
    host.put(tmp_path / "bundle", "bundle")
    assert not Path(host.path("bundle/a.wav")).is_symlink()
    assert host.read("bundle/a.wav") == b"audio"


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a b", "a;b", "", "$(x)", "a\nb"])
def test_an_address_cannot_be_an_option_or_a_command(name: str) -> None:
    with pytest.raises(ValueError):
        Address(name)
    with pytest.raises(ValueError):
        Address("host", 22, name)


@pytest.mark.parametrize("root", ["relative", "/a b", "/a/../b", "/$(x)", "~/x", "/a'b"])
def test_a_lease_folder_is_a_plain_absolute_path(tmp_path: Path, root: str) -> None:
    with pytest.raises(ValueError):
        SshHost(Address("host"), LeaseKeys(tmp_path), root, "python3", SystemClock())


def test_far_ends_of_cut_transfers_are_ended_before_the_next_begins(
    connect: Connect, sshd: Sshd, wire: Callable[[Sshd], Wire], tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(os.urandom(8 << 20))
    line = wire(sshd)
    slow = connect(sshd, line.port)
    slow.status("none")

    def receivers() -> set[int]:
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                argv = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if argv.startswith(b"rsync\0--server\0") and slow.root.encode() in argv:
                found.add(int(entry.name))
        return found

    held = threading.Event()
    line.when("up", 1 << 20, lambda: (line.hold(), held.set()))
    with at_once(lambda: slow.put(tmp_path / "model", "model")):
        until(held.is_set)
        stale = receivers()
        assert stale
        connect(sshd).put(tmp_path / "model", "model")
        until(lambda: not stale & receivers())
        line.release()
    assert Path(slow.path("model")).read_bytes() == (tmp_path / "model").read_bytes()


def test_lost_is_not_shown_to_anyone(connect: Connect, sshd: Sshd) -> None:
    """Whatever goes wrong on the line ends as an error with a message, never as the inner signal to try again."""
    host = connect(sshd, 1, BRIEF)
    for do in (lambda: host.status("x"), lambda: host.signal("x", signal.SIGTERM), host.wipe):
        with pytest.raises(HostUnreachableError) as caught:
            do()
        assert not isinstance(caught.value, Lost)
        assert "127.0.0.1:1" in str(caught.value)
