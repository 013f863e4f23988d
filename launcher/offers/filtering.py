"""Which of the offers a person wants to see, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from launcher.errors import BadInputError
from launcher.money import Usd
from launcher.offers.gpus import all_gpus, matching, nearest_gpu
from launcher.offers.offer import Offer


def of_gpus(offers: Iterable[Offer], names: Sequence[str]) -> list[Offer]:
    """The offers of the named GPUs ("a100": both sizes); all without names. BadInputError for a name of none."""
    wanted: set[str] = set()
    for name in names:
        gpus = matching(name)
        if not gpus:
            close = nearest_gpu(name)
            fix = f"Did you mean {close}?" if close else f"There is: {', '.join(all_gpus())}."
            raise BadInputError(f"{name!r} is no GPU that this launcher knows.", key="--gpu", value=name, fix=fix)
        wanted |= {gpu.name for gpu in gpus}
    return [offer for offer in offers if not names or offer.gpu in wanted]


def usd_per_gpu_hour(offer: Offer) -> Usd:
    """The hourly price of one GPU of it (of the machine, where it has none)."""
    return Usd(offer.usd_per_hour / max(1, offer.count))


def cheapest_first(offers: Iterable[Offer]) -> list[Offer]:
    """By price of a GPU-hour; what is sold out comes last."""
    return sorted(
        offers, key=lambda o: (o.available is False, o.usd_per_hour / max(1, o.count), o.provider, o.offer_id)
    )
