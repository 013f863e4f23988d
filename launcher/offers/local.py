"""This machine as offers: every NVIDIA card by free memory, or its CPU; and what else holds each card."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.clock import Clock, iso
from launcher.money import ZERO
from launcher.offers.gpus import canonical
from launcher.offers.offer import Offer
from launcher.offers.source import Context, clean

NAME = "local"
PROVIDERS: tuple[str, ...] = ("local",)
TIMEOUT_S = 5.0  # a driver that hangs is known to happen
KEPT_S = 0.0  # free memory changes by the second
REDIRECTS: tuple[str, ...] = ()

_WORTH_NAMING_GB = 0.05  # a desktop's many small windows are one figure


@dataclass(frozen=True)
class Card:
    """One card as the driver reports it; memory in GB (10^9 bytes). `holders`: name, pid and GB, largest first."""

    index: int
    name: str
    total_gb: float
    free_gb: float
    holders: tuple[tuple[str, int, float | None], ...] = ()


def offers(ctx: Context) -> list[Offer]:
    """Each card of this machine, the one with most free memory first; without one, its CPU."""
    return local_offers(ctx.clock)


def local_offers(clock: Clock) -> list[Offer]:
    """This machine's cards at price 0, the one with most free memory first; without a card, its CPU."""
    as_of = iso(clock.now())
    cards = sorted(gpus(), key=lambda card: -card.free_gb)
    if not cards:
        return [
            Offer(provider="local", offer_id="cpu", gpu=f"none ({cpu_name()})", count=0, vram_gb=0, usd_per_hour=ZERO,
                  region="here", available=True, as_of=as_of)
        ]  # fmt: skip
    return [
        Offer(provider="local", offer_id=f"gpu{card.index}", gpu=_name(card), count=1, vram_gb=round(card.free_gb, 1),
              usd_per_hour=ZERO, region="here", available=True, note=held_by(card), as_of=as_of)
        for card in cards
    ]  # fmt: skip


def local_offer(clock: Clock) -> Offer:
    """This machine's best offer, at price 0."""
    return local_offers(clock)[0]


def gpus() -> list[Card]:
    """The NVIDIA cards of this machine; empty without a driver. A card that cannot be read is passed over."""
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    found = []
    for index in range(count):
        with contextlib.suppress(pynvml.NVMLError):  # one that fell off the bus must not hide the others
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = _text(pynvml.nvmlDeviceGetName(handle))
            found.append(Card(index, name, memory.total / 1e9, memory.free / 1e9, _holders(pynvml, handle)))
    return found


def held_by(card: Card) -> str:
    """Who holds a card's memory now: `python (pid 4242) holds 9.8 GB`; nothing when it is as good as free."""
    used = card.total_gb - card.free_gb
    named = [f"{name} (pid {pid}) holds {f'{gb:.1f} GB' if gb is not None else 'some'}"
             for name, pid, gb in card.holders if gb is None or gb >= _WORTH_NAMING_GB]  # fmt: skip
    if not named:  # the driver's own share is always taken; processes of others may be hidden (a container)
        return f"{used:.1f} of {card.total_gb:.1f} GB are in use" if used > 0.1 * card.total_gb else ""
    more = f", {len(named) - 3} more" if len(named) > 3 else ""
    return ", ".join(named[:3]) + more


def cpu_name() -> str:
    """The processor's own name, and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {cores} cores"


def _name(card: Card) -> str:
    known = canonical(card.name, card.total_gb)
    return known.name if known else clean(card.name)


def _holders(pynvml: Any, handle: Any) -> tuple[tuple[str, int, float | None], ...]:
    """The processes on a card by what they hold, largest first; the driver may not tell how much."""
    used: dict[int, float | None] = {}
    for ask in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        with contextlib.suppress(pynvml.NVMLError):
            used |= {p.pid: p.usedGpuMemory / 1e9 if p.usedGpuMemory else None for p in ask(handle)}
    named = [(_process(pid), pid, gb) for pid, gb in used.items()]
    return tuple(sorted(named, key=lambda holder: -(holder[2] or 0.0)))


def _process(pid: int) -> str:
    import psutil

    try:
        return clean(psutil.Process(pid).name())
    except psutil.Error:
        return "a process"  # of another container, or gone already


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
