"""Planning jobs of a batch for one machine, one after another: the first holds it for all, the others follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from launcher.batch.file import Item
from launcher.errors import BadInputError, RefusedError
from launcher.plan import Plan
from launcher.plan.ceiling import RUN_ROOM
from launcher.workflow import Planned

Offer = tuple[str, str]  # provider, offer id
PlanOn = Callable[[Item, Offer, Mapping[Offer, float]], Planned]
"""Plans a job on an offer, with seconds (by offer) kept there for jobs to follow; raises as `plan_job`."""


@dataclass(frozen=True)
class Shared:
    """One machine for several jobs: the first one's plan, and those of the jobs to follow, in order."""

    first: Planned
    then: tuple[tuple[Item, Plan], ...]


def share(first: Item, others: Sequence[Item], offer: Offer, plan_first: PlanOn,
          plan_follower: PlanOn) -> Shared | None:  # fmt: skip
    """As many of the jobs on one machine as its budget carries; None where not even two fit there now."""
    alone = [(item, planned) for item in others if (planned := _on(item, offer, 0.0, plan_follower))]
    while alone:
        seconds = [planned.plan.choice.next_s * RUN_ROOM for _, planned in alone]
        head = _on(first, offer, sum(seconds), plan_first)
        if head is not None:
            then = [
                _on(item, offer, sum(seconds[place + 1 :]), plan_follower) for place, (item, _) in enumerate(alone)
            ]  # fmt: skip
            if all(then):
                plans = (each.plan for each in then if each is not None)
                return Shared(head, tuple(zip((item for item, _ in alone), plans, strict=True)))
        alone.pop()
    return None


def _on(item: Item, offer: Offer, after_s: float, plan: PlanOn) -> Planned | None:
    """The job's plan where it is one on this very offer."""
    try:
        planned = plan(item, offer, {offer: after_s} if after_s else {})
    except (RefusedError, BadInputError):
        return None
    choice = planned.plan.choice.offer
    return planned if (choice.provider, choice.offer_id) == offer else None
