"""SkyPilot itself, for real, on the simulated RunPod: what it does to a machine, and what it leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import requests
from planted_keys import plant

from launcher.clock import SystemClock, iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers import (
    CreateRefusedError,
    Intent,
    Machine,
    MachineFailedError,
    Presence,
    ProviderError,
)
from launcher.providers import release as releasing
from launcher.providers.registry import provider_named
from launcher.providers.skypilot import SkyPilotProvider, server
from launcher.providers.skypilot.arming import minutes_until
from launcher.providers.skypilot.lodging import Lodging
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing, command, raise_cloud
from tests.patience import until

pytestmark = pytest.mark.root
# As a plan has it: a direct offer of RunPod's, which SkyPilot is to rent.
L40S = Offer(provider="runpod", offer_id="NVIDIA L40S/secure", gpu="L40S", count=1, vram_gb=48,
             usd_per_hour=Usd("0.86"), via="skypilot", instance_type="NVIDIA L40S", region="US")  # fmt: skip
PATIENCE_S = 300.0  # for what takes half a minute on a machine that does nothing else


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    state = tmp_path_factory.mktemp("cloud") / "state"
    words = ("--seed", "5", "--providers", "runpod", "--layer", str(image.ensure()))
    try:
        yield raise_cloud(state, *words, "--set", "quick.boot_s=0.3")
    finally:
        assert command(state, "down").returncode == 0


@dataclass
class Renter:
    """A launcher's provider, and the leases of one test, which it ends."""

    cloud: Standing
    home: Home
    planted: dict[str, str]
    clock: SystemClock = field(default_factory=SystemClock)
    labels: list[str] = field(default_factory=list)

    @property
    def provider(self) -> SkyPilotProvider:
        """A fresh one each time, as another process would have it."""
        found = provider_named("runpod", self.home, self.clock, "skypilot")
        assert isinstance(found, SkyPilotProvider)
        return found

    def intent(self, minutes: float = 30.0, **how: object) -> Intent:
        label = f"pl-me-run6ab-{secrets.token_hex(4)}-20261121T180000"
        self.labels.append(label)
        keys = LeaseKeys.create(self.home.root / "keys" / label)
        deadline = iso(self.clock.now() + timedelta(minutes=minutes))
        return Intent(label, L40S.model_copy(update=how), Usd("1.00"), deadline, keys=keys)

    def enter(self, machine: Machine, keys: LeaseKeys) -> Host:
        return until(lambda: self.provider.connect(machine, keys), PATIENCE_S)

    def lodging(self, label: str) -> Lodging:
        return Lodging(self.home, "runpod", label, self.clock)

    def created(self) -> list[str]:
        """Labels of all pods that were ever created for us, by the cloud's own log."""
        ours = {label.lower(): label for label in self.labels}
        rows = (str(row["label"]) for row in self.cloud.events("created"))
        return [ours[name] for name in (row.rsplit("-", 2)[0] for row in rows) if name in ours]

    def billing(self) -> list[str]:
        return [row["id"] for row in self.cloud.bill()["machines"] if row["ended"] is None]


@pytest.fixture
def renter(standing: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Renter]:
    planted = plant(tmp_path / "user", monkeypatch)
    for name, value in standing.env.items():
        if name.startswith("RUNPOD_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(releasing, "_ASK_AGAIN_S", 0.5)
    home = Home(tmp_path / "home").ensure()
    catalog.place(home.root)
    held = Renter(standing, home, planted | {"runpod": standing.env["RUNPOD_API_KEY"]})
    yield held
    for label in held.labels:
        held.lodging(label).remove()
    standing.fault("end_all")


def ssh(keys: LeaseKeys, *words: str, text: str = "") -> str:
    """A command on the machine over the launcher's own configuration: the lease's key, the pinned host key."""
    done = subprocess.run(["ssh", "-F", "ssh_config", "lease", *words], cwd=keys.folder, input=text, text=True,
                          capture_output=True, check=False, timeout=PATIENCE_S)  # fmt: skip
    assert done.returncode in (0, 1, 2), done.stderr  # of grep: found, nothing found, or a process was gone meanwhile
    return done.stdout


def found_on(keys: LeaseKeys, texts: list[str]) -> list[tuple[str, str]]:
    """Where which of these is on the machine: in any file, or an environment or command line of any process.

    The machine is not told them in argv, where it would find them again.
    """
    patterns = "\n".join(texts) + "\n"
    files = "grep -roaFH -f - --devices=skip --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev /"
    memory = "grep -oaFH -f - $(ls -d /proc/[0-9]*/environ /proc/[0-9]*/cmdline) 2>/dev/null"
    lines = [line for search in (files, memory) for line in ssh(keys, search, text=patterns).splitlines()]
    return [(path, text) for path, _, text in (line.partition(":") for line in lines)]


def test_a_machine_is_armed_holds_no_key_of_anybody_and_ends_itself_when_all_of_ours_is_dead(renter: Renter) -> None:
    intent = renter.intent()
    provider = renter.provider
    machine = provider.create(intent)
    keys = intent.keys
    assert keys
    assert (machine.label, machine.usd_per_hour) == (intent.label, Usd("0.86"))
    assert renter.provider.find(intent.label)[0] is Presence.PRESENT
    host = renter.enter(machine, keys)
    words = provider.arm(machine, host, renter.clock.now() + timedelta(minutes=30))
    assert any("autostop" in word for word in words) and "watchdog" in host.running_steps()
    assert keys.pinned  # the machine's own key, from the first contact on
    assert renter.lodging(intent.label).processes() == []  # armed, it needs no SkyPilot here any more
    assert renter.provider.connect(machine, keys) is not None

    # Each search is shown to see: the public half of the lease's key is in a file, the pod's id in an environment.
    public, private = keys.public.split()[1], keys.private.read_text().splitlines()[2]
    pod = f"RUNPOD_POD_ID={machine.ref}"
    found = found_on(keys, [*renter.planted.values(), private, public, pod])
    assert {text for _, text in found} == {public, pod}
    assert ("/root/.ssh/authorized_keys", public) in found
    assert any(path.endswith("/environ") for path, text in found if text == pod)
    account = requests.post(f"{renter.cloud.url}/graphql", json={"query": "query { myself { pubKey } }"}, timeout=10,
                            headers={"Authorization": f"Bearer {renter.planted['runpod']}"}).json()  # fmt: skip
    assert not account["data"]["myself"]["pubKey"]  # SkyPilot by itself leaves its key in the account

    # All of ours is dead, and the watchdog has half an hour. SkyPilot's agent on the machine is told that it is idle.
    renter.lodging(intent.label).remove()
    told = ssh(keys, "~/skypilot-runtime/bin/python -c 'from sky.skylet import autostop_lib as a; c = "
               "a.get_autostop_config(); print(c.down, c.wait_for.value, c.autostop_idle_minutes); "
               "a.set_autostop(0, c.backend, c.wait_for, True)'")  # fmt: skip
    down, wait_for, minutes = told.split()[-3:]
    assert (down, wait_for) == ("True", "none") and 20 <= int(minutes) < 30
    until(lambda: not renter.billing(), PATIENCE_S)
    (ended,) = renter.cloud.events("delete")[-1:]
    assert ended["machine"] == machine.ref and ended["by"] != "account"


def test_a_launch_whose_server_dies_is_released_all_the_same_though_deletes_are_refused(
    renter: Renter, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent, chosen = renter.intent(), server._free_port
    with socket.socket() as other:  # it took the port that was chosen before the server came for it
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = iter([other.getsockname()[1]])
        monkeypatch.setattr(server, "_free_port", lambda: next(taken, None) or chosen())
        machine = renter.provider.create(intent)
    assert intent.keys and renter.provider.connect(machine, intent.keys) is None
    held = renter.lodging(intent.label)
    assert held.processes()
    held.end()
    with pytest.raises(MachineFailedError, match="did not set the machine up"):
        renter.provider.connect(machine, intent.keys)
    assert renter.billing() == [machine.ref]

    renter.cloud.fault("delete_refused", provider="runpod", count=2)
    with pytest.raises(ProviderError):
        renter.provider.destroy(machine)
    assert renter.billing() == [machine.ref]
    proof, presence = releasing.end(machine, intent.label, renter.provider, renter.clock)
    assert len(proof) == 2 and presence is Presence.ABSENT
    assert renter.billing() == [] and renter.created() == [intent.label]

    renter.provider.forget(intent.label)
    renter.provider.forget(intent.label)
    assert left_of(held) == []


def test_a_launch_whose_asker_was_killed_creates_nothing_once_it_is_released(renter: Renter) -> None:
    intent = renter.intent()
    asker = multiprocessing.get_context("fork").Process(target=renter.provider.create, args=(intent,))
    asker.start()
    held = renter.lodging(intent.label)
    until(lambda: held.facts().get("request"), PATIENCE_S)  # SkyPilot has it, and RunPod not yet
    asker.kill()
    asker.join()
    assert held.processes()
    provider = renter.provider
    provider.traits = replace(provider.traits, listing_lag_s=2.0)
    proof, presence = releasing.end(None, intent.label, provider, renter.clock)
    assert len(proof) == 2 and presence is Presence.ABSENT
    assert renter.billing() == [] and held.processes() == []  # and nobody is left who could create it now


def test_a_machine_that_skypilot_cannot_set_up_is_said_to_have_failed_and_is_released(
    renter: Renter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = raise_cloud(tmp_path / "bare", "--providers", "runpod", "--seed", "6")  # without what the set-up needs
    try:
        for name in ("RUNPOD_API_BASE_URL", "RUNPOD_API_KEY"):
            monkeypatch.setenv(name, bare.env[name])
        intent = renter.intent()
        machine = renter.provider.create(intent)
        assert intent.keys
        with pytest.raises(MachineFailedError, match="did not set the machine up"):
            renter.enter(machine, intent.keys)
        (row,) = bare.bill()["machines"]
        assert row["ended"] is None  # SkyPilot leaves it up
        proof, presence = releasing.end(machine, intent.label, renter.provider, renter.clock)
        assert len(proof) == 2 and presence is Presence.ABSENT
        (row,) = bare.bill()["machines"]
        assert row["ended"]
    finally:
        assert command(bare.state, "down").returncode == 0


def test_a_cloud_that_only_skypilot_can_ask_is_rented_and_ended_by_its_word(
    renter: Renter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RunPod once more, with nobody to ask but SkyPilot: its word proves no release."""
    monkeypatch.setattr("launcher.providers.skypilot.provider._witness", lambda *_: None)
    intent = renter.intent()
    with ThreadPoolExecutor(1) as aside:
        asked = aside.submit(renter.provider.create, intent)
        until(lambda: renter.lodging(intent.label).facts().get("request"), PATIENCE_S)
        assert renter.provider.find(intent.label)[0] is not Presence.ABSENT  # though SkyPilot shows nothing yet
        machine = asked.result()
    assert intent.keys and machine.label == intent.label
    (pod,) = renter.billing()
    host = renter.enter(machine, intent.keys)
    until(lambda: host.status("nothing").state == "absent", PATIENCE_S)
    words = renter.provider.arm(machine, host, renter.clock.now() + timedelta(minutes=30))
    assert "watchdog" in host.running_steps() and "box timer stops all work" in words
    assert [one.label for one in renter.provider.listing().machines] == [intent.label]

    assert renter.billing() == [pod] and renter.provider.find(intent.label)[0] is Presence.PRESENT
    proof, presence = releasing.end(machine, intent.label, renter.provider, renter.clock)
    assert presence is Presence.ABSENT and len(proof) == 2 and renter.billing() == []
    renter.provider.destroy(machine)  # once more, for one that is gone
    renter.provider.forget(intent.label)
    assert left_of(renter.lodging(intent.label)) == []


def left_of(held: Lodging) -> list[str]:
    """What is left of a lease's SkyPilot: processes by any trace of it, and files."""
    traces = (str(held.folder), f"sky_ssh_{held.user}")
    processes = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join([*(process.info["cmdline"] or []), process.info["cwd"] or ""])
        if process.status() != psutil.STATUS_ZOMBIE and any(trace in words for trace in traces):
            processes.append(words)
    files = [held.folder, Path("/tmp", f"sky_ssh_{held.user}"), *held.folder.parent.glob("pl-*")]
    return processes + [str(path) for path in files if path.exists()]


def without_plugin(held: Lodging) -> None:
    (held.folder / ".sky" / "plugins.yaml").write_text("{}")


def without_policy(held: Lodging) -> None:
    (held.folder / ".sky" / "config.yaml").write_text('{"allowed_clouds": ["runpod"]}')


def only_where_it_is_asked(held: Lodging) -> None:
    """The process that answers has the plugin, those that launch have not."""
    plugin = held.folder / "plugin" / "nothing_uploaded.py"
    contexts = "frozenset({plugins.PluginContext.MAIN, plugins.PluginContext.UVICORN})"
    plugin.write_text(f"{plugin.read_text()}\nNoCredentials.load_contexts = {contexts}\n")


@pytest.mark.parametrize(
    ("sabotage", "why"),
    [
        (without_plugin, "plugin is not loaded"),
        (without_policy, "policy is not in the configuration"),
        (only_where_it_is_asked, "UserRequestRejectedByPolicy"),
    ],
)
def test_nothing_is_rented_where_the_plugin_is_not_in_force(
    renter: Renter, monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[Lodging], None], why: str
) -> None:
    prepare = Lodging.prepare

    def sabotaged(held: Lodging, keys: LeaseKeys) -> None:
        prepare(held, keys)
        sabotage(held)

    monkeypatch.setattr(Lodging, "prepare", sabotaged)
    intent = renter.intent()
    with pytest.raises(CreateRefusedError, match=why):
        renter.provider.create(intent)
    assert renter.created() == [] and renter.billing() == []


def test_the_private_home_holds_one_key_and_the_environment_none(renter: Renter) -> None:
    intent = renter.intent()
    assert intent.keys
    held = renter.lodging(intent.label)
    held.prepare(intent.keys)
    assert held.folder.stat().st_mode & 0o777 == 0o700
    text = "\n".join(f"{name}={value}" for name, value in held.environment().items())
    texts = {path: path.read_text() for path in held.folder.rglob("*") if path.is_file()}
    for name, key in renter.planted.items():
        assert key not in text
        holders = [str(path.relative_to(held.folder)) for path, body in texts.items() if key in body]
        assert holders == ([".runpod/config.toml"] if name == "runpod" else [])
    secret = [held.folder / ".runpod/config.toml", *held.folder.rglob("sky-key")]
    assert len(secret) == 2 and all(path.stat().st_mode & 0o777 == 0o600 for path in secret)


def test_a_server_is_given_a_port_only_with_that_of_its_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = ["46580", "33975", "60123"]
    code = (
        "import os, sys\nfrom sky.server.requests.queues.mp_queue import get_queue_manager_port as theirs\n"
        "for port in sys.argv[1:]: os.environ['SKYPILOT_API_SERVER_LOCAL_PORT'] = port; print(theirs())"
    )
    env = {**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    said = subprocess.run([sys.executable, "-c", code, *ports], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(server.queues_port(int(port))) for port in ports]

    chosen = server._any_port()
    with socket.socket() as other:  # what is taken is the queues' port alone
        other.bind(("127.0.0.1", server.queues_port(chosen)))
        free = server._any_port()
        asked = iter([chosen, free])
        monkeypatch.setattr(server, "_any_port", lambda: next(asked))
        assert server._free_port() == free
    assert server._TAKEN.search("RuntimeError: Queue manager process exited unexpectedly.")


@pytest.mark.parametrize("seconds", [30, 61, 119, 120, 185, 1799, 1800, 86399])
def test_autostop_never_fires_after_the_deadline_where_a_minute_can_tell(renter: Renter, seconds: int) -> None:
    deadline = renter.clock.now() + timedelta(seconds=seconds)
    minutes = minutes_until(deadline, renter.provider._clock)
    assert minutes >= 1 and (minutes == 1 or (minutes + 1) * 60 <= seconds)


def test_another_version_of_skypilot_is_refused_by_name(renter: Renter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.providers.skypilot.provider.version", lambda _name: "0.15.0")
    why = renter.provider.unusable()
    assert why and "0.15.0" in why and "0.14.1" in why
    with pytest.raises(CreateRefusedError, match=r"0\.15\.0"):
        renter.provider.create(renter.intent())
    assert not list((renter.home.root / "skypilot").glob("pl-*"))


def test_the_launcher_itself_never_imports_skypilot(repo: Path) -> None:
    code = "import sys, launcher.providers.skypilot; sys.exit(any(n.split('.')[0] == 'sky' for n in sys.modules))"
    env = {"PYTHONPATH": str(repo), "PATH": os.environ["PATH"]}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
