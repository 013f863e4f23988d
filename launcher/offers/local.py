"""This machine as an offer: its best NVIDIA GPU by free memory, or its CPU."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from launcher.clock import Clock, iso
from launcher.money import ZERO
from launcher.offers.offer import Offer


@dataclass(frozen=True)
class Gpu:
    """One card as the driver reports it; memory in GB (10^9 bytes)."""

    index: int
    name: str
    total_gb: float
    free_gb: float


def gpus() -> list[Gpu]:
    """The NVIDIA cards of this machine; empty without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = pynvml.nvmlDeviceGetName(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        text = name.decode() if isinstance(name, bytes) else str(name)
        found.append(Gpu(index, text, memory.total / 1e9, memory.free / 1e9))
    return found


def cpu_name() -> str:
    """The processor's own name, and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {cores} cores"


def local_offer(clock: Clock) -> Offer:
    """This machine, at price 0."""
    cards = sorted(gpus(), key=lambda card: -card.free_gb)
    as_of = iso(clock.now())
    if cards:
        best = cards[0]
        return Offer(
            provider="local", offer_id=f"gpu{best.index}", gpu=best.name, count=1, vram_gb=round(best.free_gb, 1),
            usd_per_hour=ZERO, region="here", as_of=as_of,
        )  # fmt: skip
    return Offer(
        provider="local", offer_id="cpu", gpu=f"none ({cpu_name()})", count=0, vram_gb=0, usd_per_hour=ZERO,
        region="here", as_of=as_of,
    )  # fmt: skip
