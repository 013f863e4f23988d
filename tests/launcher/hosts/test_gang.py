"""Several machines as one host: each behind a real sshd of its own, with a folder and a pinned key of its own."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import QUICK
from real_sshd import Sshd

from launcher.clock import SystemClock
from launcher.hosts.base import HostError, HostKeyChangedError
from launcher.hosts.gang import Gang, nodes_of
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.ssh import SshHost
from launcher.ledger import Lease
from launcher.money import Usd
from launcher.providers.base import Machine, ProviderError
from launcher.runner.boarding import Aboard
from launcher.runner.together import TOLD, start_together
from tests.patience import until

ENV = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "AWS_SECRET_ACCESS_KEY": "planted"}
TELL = "import json, os; open('told', 'w').write(json.dumps(dict(os.environ))); import signal; signal.pause()"


class Ranks:
    """Runs a script as SkyPilot's own run does: on each node at once, as a shell's, told its rank."""

    name = "ranks"

    def __init__(self, fails: bool = False, only: int = 9) -> None:
        self._fails, self._only = fails, only
        self.started: list[subprocess.Popen[bytes]] = []

    def start_together(self, machine: Machine, name: str, script: str) -> None:
        if self._fails:
            raise ProviderError("not today")
        roots = machine.facts["roots"]
        for rank, root in enumerate(roots[: self._only]):
            told = {"SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
                    "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "1"}  # fmt: skip
            here = script.replace(roots[0], root)  # one folder a node: they are one machine here
            self.started.append(subprocess.Popen(["bash", "-c", here], env={**ENV, **told}, start_new_session=True))


@pytest.fixture
def keys(tmp_path: Path) -> LeaseKeys:
    return LeaseKeys.create(tmp_path / "keys", "lease")


@pytest.fixture
def gang(new_sshd: Callable[..., Sshd], keys: LeaseKeys, tmp_path: Path) -> Iterator[Gang]:
    hosts = []
    for rank in range(2):
        server = new_sshd()
        server.admit(keys.public)
        address = Address("127.0.0.1", server.port, getpass.getuser())
        hosts.append(SshHost(address, keys.of_node(rank), f"{tmp_path}/box{rank}", sys.executable, SystemClock(),
                             patience=QUICK, box_python=sys.executable))  # fmt: skip
    found = Gang(hosts[0], hosts[1:])
    yield found
    found.close()


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    made = Ranks()
    yield made
    for process in made.started:
        process.wait(30)


def aboard(gang: Gang, provider: Any) -> Aboard:
    roots = [node.path("").rstrip("/") for node in gang.nodes]
    machine = {"ref": "m", "usd_per_hour": "1", "facts": {"roots": roots}}
    lease: Any = SimpleNamespace(provider="ranks", label="pl", machine=machine, max_usd_per_hour=Usd(1))
    held: Lease = lease
    return Aboard(held, SimpleNamespace(), provider, gang)  # type: ignore[arg-type]


def test_it_answers_for_all_and_each_has_its_own_pinned_key(gang: Gang, keys: LeaseKeys) -> None:
    assert gang.answers(within_s=30)
    pins = [keys.of_node(rank).pinned for rank in range(2)]
    assert None not in pins and pins[0] != pins[1]
    assert (keys.folder / "node-1" / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostKeyChangedError):
        keys.of_node(1).pin(str(pins[0]))
    keys.destroy()
    assert not list(keys.folder.rglob("key*"))


def test_a_step_is_started_on_each_with_what_skypilot_tells_and_nothing_else(gang: Gang, ranks: Ranks) -> None:
    start_together(aboard(gang, ranks), "finetune", [sys.executable, "-c", TELL], {"SPEC": "a 'b' $c"}, SystemClock())
    boxes = [Path(node.path("told")) for node in gang.nodes]
    until(lambda: all(box.exists() and box.read_text().endswith("}") for box in boxes))
    told = [json.loads(box.read_text()) for box in boxes]
    assert [one["SKYPILOT_NODE_RANK"] for one in told] == ["0", "1"]
    assert {tuple(one[name] for name in TOLD[1:]) for one in told} == {("10.0.0.1\n10.0.0.2", "2", "1")}
    assert {one["SPEC"] for one in told} == {"a 'b' $c"} and "AWS_SECRET_ACCESS_KEY" not in told[0]
    assert gang.running_steps() == ["finetune"] and gang.status("finetune").state == "running"

    start_together(aboard(gang, ranks), "finetune", [sys.executable, "-c", TELL], {}, SystemClock())
    assert [process.wait(30) != 0 for process in ranks.started[:2]] == [True, True]  # the first start was ended
    gang.signal("finetune", signal.SIGTERM)  # is the first one's, which would tell the other
    until(lambda: gang.status("finetune").state == "exited")
    assert [node.status("finetune").state for node in nodes_of(gang)] == ["exited", "running"]
    gang.signal("finetune", signal.SIGKILL)
    until(lambda: gang.running_steps() == [])
    gang.clear(["finetune"])
    assert [node.status("finetune").state for node in nodes_of(gang)] == ["absent", "absent"]


def test_what_is_not_started_on_all_is_said(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    argv, clock = [sys.executable, "-c", "raise SystemExit(13)"], SystemClock()
    with pytest.raises(HostError, match="not started on all machines: not today"):
        start_together(aboard(gang, Ranks(fails=True)), "finetune", argv, {}, clock)
    monkeypatch.setattr("launcher.runner.together.STARTS_S", 1.0)
    half = Ranks(only=1)
    with pytest.raises(HostError, match="did not start on all machines"):
        start_together(aboard(gang, half), "finetune", argv, {}, clock)
    assert half.started[0].wait(30) == 13  # by which SkyPilot knows how it ended there
    with pytest.raises(HostError, match="does not start a step on several"):
        start_together(aboard(gang, object()), "finetune", argv, {}, clock)


def test_it_is_wiped_on_all(gang: Gang, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    for node in nodes_of(gang):
        node.put(tmp_path / "data", "data")
    gang.wipe_within(30)
    assert not list(tmp_path.glob("box*"))
