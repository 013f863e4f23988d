"""Several machines as one job: an offer's prices are then those of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.traits import traits_of


def of_nodes(offers: Iterable[Offer], nodes: int) -> Iterator[Offer]:
    """The same offers as so many machines each, where their provider rents several as one; the others as they are.

    Rate, disk and what is sent there count once a machine; what comes home comes from the first of them alone.
    """
    for offer in offers:
        traits = traits_of(offer)
        if nodes == 1 or traits is None or not traits.many_nodes:
            yield offer
            continue
        yield offer.model_copy(update={
            "nodes": nodes, "usd_per_hour": Usd(offer.usd_per_hour * nodes),
            "disk_usd_per_gb_month": Usd(offer.disk_usd_per_gb_month * nodes),
            "usd_per_gb_down": Usd(offer.usd_per_gb_down * nodes),
        })  # fmt: skip
