"""Several pods of one lease: one machine with the rate of all, proven to be gone only when each of them is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from test_provider_answers import KEY, LABEL, POD

from launcher.clock import SystemClock, parse_iso
from launcher.home import Home
from launcher.hosts.gang import Gang
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers import bounded
from launcher.offers.offer import Offer
from launcher.providers import CreateRefusedError, Intent, Presence
from launcher.providers.base import Machine, StartsTogether, each_of
from launcher.providers.registry import provider_named
from launcher.providers.release import as_held
from launcher.providers.runpod import RunPodProvider
from launcher.providers.skypilot import SkyPilotProvider

NAME = f"{LABEL.lower()}-0123abcd"
HEAD = POD | {"id": "zzz", "name": f"{NAME}-head", "createdAt": "2026-01-01T00:00:00Z"}
WORKER = POD | {"id": "aaa", "name": f"{NAME}-worker", "createdAt": "2026-01-01T00:10:00Z"}


def at(text: str) -> datetime:
    return parse_iso(f"2026-01-01T{text}.000Z")


class Account:
    """RunPod's answers about an account with these pods."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = [WORKER, HEAD]
        self.hidden: list[str] = []  # not listed yet, though they are there, and bill
        self.ended: list[str] = []

    def exchange(self, _ctx: object, _url: str, *, body: Any, **_: Any) -> bounded.Reply:
        query = body["query"]
        if "podTerminate" in query:
            self.ended.append(query.split('"')[1])
            self.pods = [pod for pod in self.pods if pod["id"] not in self.ended]
            return bounded.Reply(200, b'{"data": {"podTerminate": null}}')
        shown = [pod for pod in self.pods if pod["id"] not in self.hidden]
        asked = [part.split('"')[0] for part in query.split('podId: "')[1:]]
        spend = sum(pod["costPerHr"] for pod in self.pods)
        data: dict[str, Any] = {"myself": {"id": "user_1", "currentSpendPerHr": spend, "pods": shown}}
        data |= {f"p{n}": next((pod for pod in shown if pod["id"] == ref), None) for n, ref in enumerate(asked)}
        return bounded.Reply(200, json.dumps({"data": data}).encode())


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    made = Account()
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_API_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(bounded, "exchange", made.exchange)
    yield made


@pytest.fixture
def provider(tmp_path: Path, account: Account) -> RunPodProvider:
    made = RunPodProvider(Home(tmp_path), SystemClock())
    made.intend(LABEL, 2)
    return made


def found(provider: RunPodProvider) -> Machine:
    presence, machine = provider.find(LABEL)
    assert presence is Presence.PRESENT and machine is not None
    return machine


def test_they_are_one_machine_with_the_rate_of_all_and_each_is_charged_from_when_it_was_there(
    provider: RunPodProvider,
) -> None:
    machine = found(provider)
    held = as_held(machine)  # as the ledger keeps it, and another process reads it
    machine = Machine(held["ref"], LABEL, Usd(held["usd_per_hour"]), json.loads(json.dumps(held["facts"])))
    assert (machine.ref, machine.label, machine.usd_per_hour) == ("zzz", LABEL, Usd("1.72"))
    assert [(one.ref, one.usd_per_hour) for one in each_of(machine)] == [("zzz", Usd("0.86")), ("aaa", Usd("0.86"))]
    disk = sum(float(one.facts["disk_usd_per_hour"]) for one in each_of(machine))
    assert float(machine.facts["disk_usd_per_hour"]) == pytest.approx(disk)
    both = provider.charged(machine, at("00:00:00"), at("01:00:00"))
    hours = 1 + 50 / 60
    assert float(both.amount) == pytest.approx(0.86 * hours + disk / 2 * hours, abs=1e-5)
    later = provider.charged(machine, at("00:30:00"), at("01:00:00"))  # handed over then: from there on
    assert float(later.amount) == pytest.approx(0.86 + disk / 2, abs=1e-5)


def test_both_are_entered_the_first_one_first_once_both_answer(
    provider: RunPodProvider, account: Account, tmp_path: Path
) -> None:
    keys = LeaseKeys.create(tmp_path / "keys")
    account.hidden = ["aaa"]
    assert provider.connect(found(provider), keys) is None  # the other one is not shown yet
    account.hidden = []
    host = provider.connect(found(provider), keys)
    assert isinstance(host, Gang) and len(host.nodes) == 2
    assert host.address.port == 9 and (keys.folder / "node-1" / "ssh_config").exists()


@pytest.mark.parametrize("seen", ["both", "first"])
def test_neither_is_gone_until_both_are(provider: RunPodProvider, account: Account, seen: str) -> None:
    account.hidden = ["aaa"] if seen == "first" else []
    machine = found(provider)
    if seen == "first":  # the other was created and never shown: the account's spending tells of it
        provider.destroy(machine)
        assert account.ended == ["zzz"]
        assert provider.find(LABEL)[0] is Presence.UNKNOWN
        account.hidden = []
        machine = found(provider)
        assert machine.ref == "aaa"
    provider.destroy(machine)
    assert sorted(account.ended) == ["aaa", "zzz"]
    assert provider.find(LABEL)[0] is Presence.ABSENT


def test_another_computer_finds_and_ends_both_by_the_label(account: Account, tmp_path: Path) -> None:
    reaper = RunPodProvider(Home(tmp_path / "elsewhere"), SystemClock())
    assert {one.label.lower() for one in reaper.listing().machines} == {LABEL.lower()}
    for machine in reaper.listing().machines:
        reaper.destroy(machine)
    assert set(account.ended) == {"aaa", "zzz"} and reaper.find(LABEL)[0] is Presence.ABSENT


def test_through_skypilot_alone_and_where_it_does(tmp_path: Path, account: Account) -> None:
    del account
    offer = Offer(provider="runpod", via="skypilot", offer_id="NVIDIA L40S/secure", instance_type="1x_L40S_SECURE",
                  gpu="L40S", count=1, vram_gb=48, usd_per_hour=Usd("1.72"), nodes=2, trust="secure",
                  as_of="")  # fmt: skip
    home, clock = Home(tmp_path), SystemClock()
    through = SkyPilotProvider("runpod", home, clock)
    intent = Intent(LABEL, offer, Usd(2), "2036-01-01T01:00:00Z", keys=LeaseKeys.create(tmp_path / "keys"))
    with pytest.raises(CreateRefusedError, match="rents no 2 machines as one at runpod"):
        through.create(intent)
    assert through._task(intent)["num_nodes"] == 2
    one = Intent(LABEL, offer.model_copy(update={"nodes": 1}), Usd(2), intent.deadline)
    assert "num_nodes" not in through._task(one)
    names = {"lambda": "skypilot", "runpod": "direct", "vast": "direct", "brev": "direct", "local": "direct"}
    able = [name for name, via in names.items() if isinstance(provider_named(name, home, clock, via), StartsTogether)]
    assert able == ["lambda"]
