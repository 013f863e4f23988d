"""This machine as offers. Cards that are not here are played by a stand-in for NVIDIA's library."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from strangers import StillClock

from launcher.home import Home
from launcher.money import ZERO
from launcher.offers import ask_market, local
from launcher.offers.local import local_offers


class NVMLError(Exception):
    """What pynvml raises."""


def nvml(*cards: dict[str, Any]) -> SimpleNamespace:
    """As much of pynvml as is used, with these cards; a card of None cannot be read."""

    def handle(index: int) -> dict[str, Any]:
        if not cards[index]:
            raise NVMLError("GPU is lost")
        return cards[index]

    return SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=handle, nvmlDeviceGetName=lambda card: card["name"],
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(total=card["total"], free=card["free"]),
        nvmlDeviceGetComputeRunningProcesses=lambda card: card.get("compute", []),
        nvmlDeviceGetGraphicsRunningProcesses=lambda card: card.get("graphics", []),
    )  # fmt: skip


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *cards: monkeypatch.setitem(sys.modules, "pynvml", nvml(*cards))


CARD = {"name": "NVIDIA GeForce RTX 4090", "total": 25_757_220_864, "free": 25_300_000_000}


def test_every_card_is_an_offer_under_its_canonical_name_the_freest_first(play: Any, clock: StillClock) -> None:
    play(CARD | {"free": 4_000_000_000}, {}, CARD | {"name": b"NVIDIA A100-SXM4-80GB", "total": 85_899_345_920})
    offers = local_offers(clock)
    assert [(o.offer_id, o.gpu, o.count, o.vram_gb, o.usd_per_hour, o.trust) for o in offers] == [
        ("gpu2", "A100 80GB", 1, 25.3, ZERO, "own"), ("gpu0", "RTX 4090", 1, 4.0, ZERO, "own"),
    ]  # fmt: skip


def test_what_else_holds_a_card_is_told_by_name_pid_and_size(play: Any, clock: StillClock) -> None:
    own = os.getpid()
    held = {
        "compute": [process(own, 9_800_000_000), process(2**22 + 1, None)],
        "graphics": [process(own, 9_800_000_000)],
    }
    play(CARD | {"free": 15_000_000_000} | held)
    import psutil

    name = psutil.Process(own).name()
    note = f"{name} (pid {own}) holds 9.8 GB, a process (pid {2**22 + 1}) holds some"
    assert [offer.note for offer in local_offers(clock)] == [note]


def test_memory_held_by_nobody_to_be_seen_is_told_too_and_the_drivers_own_share_is_not(
    play: Any, clock: StillClock
) -> None:
    play(CARD | {"free": 15_000_000_000})
    assert local_offers(clock)[0].note == "10.8 of 25.8 GB are in use"
    play(CARD)
    assert local_offers(clock)[0].note == ""


def test_a_laptops_card_keeps_its_own_name(play: Any, clock: StillClock) -> None:
    play(CARD | {"name": "NVIDIA GeForce RTX 4070 Laptop GPU"})
    assert local_offers(clock)[0].gpu == "NVIDIA GeForce RTX 4070 Laptop GPU"


def test_without_a_card_this_machine_is_a_cpu_at_no_price(play: Any, clock: StillClock, home: Home) -> None:
    play()
    (offer,) = local_offers(clock)
    assert (offer.offer_id, offer.count, offer.vram_gb, offer.usd_per_hour) == ("cpu", 0, 0, ZERO)
    assert offer.gpu.startswith("none (")
    assert ask_market(home, clock, providers=["local"]).offers == [offer]


def test_this_machine_is_asked_again_every_time(play: Any, clock: StillClock, home: Home) -> None:
    play(CARD)
    assert ask_market(home, clock, providers=["local"]).offers[0].vram_gb == 25.3
    play(CARD | {"free": 1_000_000_000})
    assert ask_market(home, clock, providers=["local"]).offers[0].vram_gb == 1.0


@pytest.mark.gpu
def test_the_card_of_this_machine_is_seen_with_its_memory() -> None:
    cards = local.gpus()
    if not cards:
        pytest.skip("no GPU")
    assert all(0 < card.free_gb <= card.total_gb for card in cards)
