"""A machine is real unless its provider's endpoint is surely a simulation."""

from __future__ import annotations

import pytest

from launcher.providers.live import ENDPOINTS, is_live, where
from launcher.providers.traits import SKYPILOT_CLOUDS


@pytest.fixture(autouse=True)
def undirected(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _ in ENDPOINTS.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("provider", ["runpod", "vast", "brev"])
@pytest.mark.parametrize("via", ["direct", "skypilot"])
def test_a_provider_is_live_until_it_is_redirected(provider: str, via: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_live(provider, via)
    monkeypatch.setenv(ENDPOINTS[provider][0], "")
    assert is_live(provider, via), "an empty variable redirects nothing"
    monkeypatch.setenv(ENDPOINTS[provider][0], "http://127.0.0.1:8123")
    assert not is_live(provider, via)
    assert where(provider) == "127.0.0.1:8123"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1", "http://127.9.9.9:1/x", "https://localhost:44", "http://[::1]:80", "http://10.1.2.3",
     "http://172.16.0.1", "http://172.31.255.254", "http://192.168.7.1:8000/graphql"],
)  # fmt: skip
def test_a_private_address_is_a_simulation(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_URL", url)
    assert not is_live("vast")


@pytest.mark.parametrize(
    "url",
    ["https://console.vast.ai", "http://172.32.0.1", "http://8.8.8.8", "http://127.0.0.1@console.vast.ai",
     "http://127.0.0.1.example.com", "http://localhost.example.com", "127.0.0.1:80", "ftp://127.0.0.1", "http://",
     "http://[::ffff:8.8.8.8]", "http://0.0.0.0", "http://169.254.1.1", "http://100.64.0.1", "http://[not",
     "2130706433", "http://2130706433"],
)  # fmt: skip
def test_whatever_is_not_surely_private_is_live(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_URL", url)
    assert is_live("vast")
    assert where("vast")  # in words, whatever it is


def test_one_redirect_speaks_for_one_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_BASE_URL", "http://127.0.0.1:1")
    assert not is_live("runpod", "skypilot")
    assert is_live("vast")
    assert is_live("brev")


@pytest.mark.parametrize("cloud", [*SKYPILOT_CLOUDS, "somebody-elses"])
def test_every_other_cloud_is_live(cloud: str) -> None:
    assert is_live(cloud, "skypilot")
    assert where(cloud) == cloud


def test_this_machine_rents_nothing() -> None:
    assert not is_live("local")
    assert where("runpod") == "api.runpod.io"
