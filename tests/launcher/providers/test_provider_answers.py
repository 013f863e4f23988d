"""No answer brings a provider down, makes a machine of nothing, or proves an absence that was not asked about."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from grounds import GROUNDS, Ground
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers import bounded
from launcher.providers import (
    CreateRefusedError,
    Intent,
    Machine,
    MachineFailedError,
    Presence,
    ProviderError,
    SoldOutError,
)

KEY = "key-SECRET-0123456789"
LABEL = "pl-me-abcdef-01234567-20260101T000000"
HTTP = [ground for ground in GROUNDS if ground.redirect]

POD = {
    "id": "abc123", "name": LABEL, "costPerHr": 0.86, "createdAt": "2026-01-01T00:00:00Z", "desiredStatus": "RUNNING",
    "podType": "RESERVED", "gpuCount": 1, "containerDiskInGb": 20,
    "runtime": {"ports": [{"ip": "127.0.0.1", "isIpPublic": True, "privatePort": 22, "publicPort": 9}]},
}  # fmt: skip
ROW = {
    "id": 123, "label": LABEL, "actual_status": "running", "intended_status": "running", "status_msg": "",
    "dph_base": 0.6, "dph_total": 0.61, "storage_total_cost": 0.01, "start_date": 1767225600.0, "uptime_mins": 1.0,
    "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9"}]}, "public_ipaddr": "127.0.0.1", "ssh_host": None,
    "ssh_port": None,
}  # fmt: skip
REFS = {"runpod": "abc123", "vast": "123"}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400)
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def rows_like(row: dict[str, Any]) -> st.SearchStrategy[Any]:
    changes = st.dictionaries(st.sampled_from(sorted(row)), ANYTHING, max_size=3)
    return changes.map(lambda change: row | change) | ANYTHING


def runpod_says(one: Any, rows: Any, account: Any, wrong: Any) -> Callable[[str, Any], Any]:
    def answer(_url: str, body: Any) -> Any:
        if "podFindAndDeployOnDemand" in body["query"]:
            return {"data": {"podFindAndDeployOnDemand": one}}
        if "podTerminate" in body["query"]:
            return {"data": {"podTerminate": wrong}}
        me = {"id": account, "currentSpendPerHr": wrong, "pods": rows}
        return {"data": {"myself": me, "p0": one, "p1": one}}

    return answer


def vast_says(one: Any, rows: Any, account: Any, wrong: Any) -> Callable[[str, Any], Any]:
    def answer(url: str, body: Any) -> Any:
        if "/users/current" in url:
            return {"id": account}
        if "/bundles/" in url:
            return {"offers": [{"id": 12345690, "dph_base": 0.6, "dph_total": 0.6}]}
        if "/asks/" in url:
            return {"success": True, "new_contract": one.get("id") if isinstance(one, dict) else one}
        if "/contracts/" in url:
            return {"contracts": wrong}
        return {"instances": rows, "total_instances": wrong} if "/v1/" in url else {"instances": one}

    return answer


SAYS = {"runpod": (POD, runpod_says), "vast": (ROW, vast_says)}


def ready(ground: Ground, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., bounded.Reply]) -> None:
    monkeypatch.setenv(ground.key, KEY)
    monkeypatch.setenv(ground.redirect, "http://127.0.0.1:9")
    monkeypatch.setattr(bounded, "exchange", answer)


def checked(call: Callable[[], Any], *kinds: type[Exception]) -> Any:
    """What a call says; an error may only be of these kinds, in words that can be shown."""
    try:
        return call()
    except kinds as error:
        said = str(error)
        assert said.isprintable() and len(said) < 600 and KEY not in said, said
        return None


@pytest.mark.parametrize("ground", HTTP, ids=lambda ground: ground.name)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_no_answer_whatsoever_crashes_a_provider_or_makes_a_machine_of_nothing(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    row, says = SAYS[ground.name]
    one = data.draw(rows_like(row))
    rows = data.draw(st.lists(rows_like(row), max_size=3) | ANYTHING)
    account = data.draw(st.just("user_1" if ground.name == "runpod" else 42) | ANYTHING)
    answer = says(one, rows, account, data.draw(ANYTHING))
    bare = data.draw(st.booleans())

    def exchange(_ctx: object, url: str, *, body: Any = None, **_: Any) -> bounded.Reply:
        held = one if bare else answer(url, body)
        return bounded.Reply(data.draw(st.sampled_from([200, 200, 200, 400, 404, 500])),
                             json.dumps(held).encode(errors="surrogatepass"))  # fmt: skip

    ready(ground, monkeypatch, exchange)
    folder = tmp_path_factory.mktemp("home")
    provider = ground.make(Home(folder), SystemClock())
    keys, offer = LeaseKeys(folder / "keys"), ground.offers[0]
    keys.folder.mkdir()
    (keys.folder / "key.pub").write_text("ssh-ed25519 AAAA\n")
    known = Machine(REFS[ground.name], LABEL, Usd("0.86"), {"account": "user_1" if ground.name == "runpod" else "42"})

    for _ in range(2):  # once unknown, then known by its id
        presence, found = provider.find(LABEL)
        assert (presence is Presence.PRESENT) == (found is not None)
        assert found is None or found.label == LABEL
        assert all(isinstance(m.ref, str) and m.usd_per_hour >= 0 for m in provider.listing().machines)
        checked(lambda: provider.connect(known, keys), MachineFailedError)
        checked(lambda: provider.destroy(known), ProviderError)
    intent = Intent(LABEL, offer, Usd(9), "2026-01-01T01:00:00Z", keys=keys)
    made = checked(lambda: provider.create(intent), ProviderError)
    assert made is None or (made.ref and made.label == LABEL and made.usd_per_hour >= 0)
    json.dumps([m.facts for m in (made, found) if m], allow_nan=False)


ODD = {
    "a web page": b"<!DOCTYPE html><html><body>Just a moment...</body></html>",
    "nothing": b"",
    "nested": b"[" * 100_000,
    "control characters": json.dumps({"errors": [{"message": f"\x1b]0;owned\x07{KEY}\r\n\x00" * 50}]}).encode(),
    "no UTF-8": b"\xff\xfe\x00",
    "a long number": b'{"data": {"myself": {"id": ' + b"9" * 10_000 + b"}}}",
}


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 502])
@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
@pytest.mark.parametrize("ground", HTTP, ids=lambda ground: ground.name)
def test_an_odd_answer_proves_nothing_and_is_told_in_words(
    ground: Ground, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int
) -> None:
    ready(ground, monkeypatch, lambda *_, **__: bounded.Reply(status, body))
    provider = ground.make(Home(tmp_path), SystemClock())
    assert provider.find(LABEL) == (Presence.UNKNOWN, None)
    assert not provider.listing().complete
    with pytest.raises(ProviderError) as raised:
        provider.destroy(Machine(REFS[ground.name], LABEL, Usd(1)))
    assert str(raised.value).isprintable() and KEY not in str(raised.value)
    keys = LeaseKeys.create(tmp_path / "keys")
    with pytest.raises(CreateRefusedError) as refused:  # whose account it is was asked first, and not said
        provider.create(Intent(LABEL, ground.offers[0], Usd(9), "2026-01-01T01:00:00Z", keys=keys))
    assert not isinstance(refused.value, SoldOutError)
    assert str(refused.value).isprintable() and KEY not in str(refused.value)


@pytest.mark.parametrize("ground", HTTP, ids=lambda ground: ground.name)
def test_a_sound_answer_is_understood(ground: Ground, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row, says = SAYS[ground.name]
    answer = says(row, [row], "user_1" if ground.name == "runpod" else 42, [{"id": 123}])

    def exchange(_ctx: object, url: str, *, body: Any = None, **_: Any) -> bounded.Reply:
        return bounded.Reply(200, json.dumps(answer(url, body)).encode())

    ready(ground, monkeypatch, exchange)
    provider = ground.make(Home(tmp_path), SystemClock())
    presence, found = provider.find(LABEL)
    assert presence is Presence.PRESENT and found is not None
    assert (found.ref, found.usd_per_hour) == (REFS[ground.name], ground.offers[0].usd_per_hour)
    assert found.facts["ssh"] == ["127.0.0.1", 9]
    assert found.facts["billed_from"] == "2026-01-01T00:00:00.000Z"
