"""Which engine rents an offer: SkyPilot for RunPod and what only it reaches, ourselves for Vast and Brev."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from launcher.offers.offer import Offer, Via
from launcher.providers.registry import can_rent

Wish = Literal["auto", "direct", "skypilot"]

USUAL: dict[str, Via] = {"runpod": "skypilot"}  # where both can rent; every other provider of ours is rented directly


def with_engine(offers: Iterable[Offer], wish: Wish) -> Iterator[Offer]:
    """The same offers, each with the engine that would rent it, as the job wishes where there is a choice."""
    for offer in offers:
        via = engine_of(offer.provider, offer.via, wish)
        yield offer if via == offer.via else offer.model_copy(update={"via": via})


def engine_of(provider: str, told: Via, wish: Wish) -> Via:
    """The engine for one provider. `told` is what the source says: skypilot holds unless the job wishes otherwise."""
    if told == "skypilot" and wish == "auto":
        return told
    direct, through = can_rent(provider), can_rent(provider, "skypilot") and skypilot_is_installed()
    if wish == "skypilot" and through:
        return "skypilot"
    if direct and (wish == "direct" or USUAL.get(provider) != "skypilot" or not through):
        return "direct"
    return "skypilot" if through else told


@cache
def skypilot_is_installed() -> bool:
    """Asked of the distributions: from a checkout `import sky` would find our folder of that name."""
    try:
        version("skypilot")
    except PackageNotFoundError:
        return False
    return True
