"""Several machines as one job: an offer's prices are then those of all of them; and where they cannot be had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from launcher.errors import RefusedError
from launcher.job import TRAINING_RECIPES
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.traits import traits_of

if TYPE_CHECKING:
    from launcher.plan.model import Plan
    from launcher.providers.base import Provider

_NOTHING = "Nothing was created and nothing was reserved."


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


def refuse_nodes(plan: Plan, provider: Provider) -> None:
    """Raise RefusedError where several machines as one job cannot be had, or would be paid for nothing."""
    from launcher.providers.base import StartsTogether

    nodes = plan.choice.offer.nodes
    if not isinstance(provider, StartsTogether) or not provider.traits.many_nodes:
        raise RefusedError(
            f"{provider.name} rents no {nodes} machines as one job through this launcher. {_NOTHING}",
            key="resources.nodes", value=nodes, fix="Take several GPUs in one machine: nodes: 1.",
        )  # fmt: skip
    if plan.recipe not in TRAINING_RECIPES:
        raise RefusedError(
            f"only training is spread over several machines: {plan.recipe} would use one of {nodes}. {_NOTHING}",
            key="resources.nodes", value=nodes, fix="Take one machine: nodes: 1.",
        )  # fmt: skip
