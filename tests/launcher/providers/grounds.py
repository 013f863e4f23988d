"""The providers that the suite holds to the contract, each on its ground. A provider joins by adding a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launcher.clock import Clock
from launcher.home import Home
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.base import Provider
from launcher.providers.brev import BrevProvider
from launcher.providers.runpod import RunPodProvider
from launcher.providers.vast import VastProvider


@dataclass(frozen=True)
class Ground:
    """One way to rent from the simulated cloud. What a provider cannot be put through, it says here, and why."""

    name: str  # of the row
    cloud: str  # as the simulated cloud calls the provider
    make: Callable[[Home, Clock], Provider]
    offers: tuple[Offer, Offer]  # two that can be rented at the same time
    key: str  # the setting that holds the account's key
    redirect: str = ""  # the setting that sends its questions elsewhere, where it asks over HTTP itself
    gpu_from_running: bool = False  # before a machine runs, only its disk is billed
    ends_itself: bool = False  # with a right of its own, where its provider grants that (this cloud does)
    slow: float = 1.0  # how many times the patience it takes: it is asked through a program
    door: str = "/root/.ssh/authorized_keys"
    other_keys: int = 0  # of the account, which the provider puts there itself
    deletes_by_list: bool = False  # its delete looks the name up in the list: while that lies, nothing can be ended
    # Lies of a list that a provider with no other question cannot see through: from another computer, which knows
    # nothing of the leases; and about a create that was never answered.
    blind_elsewhere: tuple[str, ...] = ()
    blind_to_lost: tuple[str, ...] = ()


def _offer(provider: str, offer_id: str, usd: str) -> Offer:
    return Offer(provider=provider, offer_id=offer_id, gpu="L40S", count=1, vram_gb=48, usd_per_hour=Usd(usd),
                 instance_type=offer_id)  # fmt: skip


GROUNDS = (
    Ground(
        "runpod", "runpod", RunPodProvider,
        (_offer("runpod", "NVIDIA L40S/secure", "0.86"), _offer("runpod", "NVIDIA A40/community", "0.35")),
        key="RUNPOD_API_KEY", redirect="RUNPOD_API_BASE_URL", ends_itself=True,
    ),
    Ground(
        "vast", "vast", VastProvider,
        (_offer("vast", "12345690", "0.60"), _offer("vast", "12345678", "0.28")),
        key="VAST_API_KEY", redirect="VAST_URL", gpu_from_running=True, ends_itself=True,
    ),
    Ground(
        "brev", "brev", BrevProvider, (_offer("brev", "l40s-48gb.1x", "1.50"), _offer("brev", "g6e.xlarge", "1.861")),
        key="BREV_API_KEY", gpu_from_running=True, slow=8.0, door="/home/ubuntu/.ssh/authorized_keys", other_keys=1,
        deletes_by_list=True,
        blind_elsewhere=("empty_list", "partial_list", "wrong_account"), blind_to_lost=("partial_list",),
    ),
)  # fmt: skip
