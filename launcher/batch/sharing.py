"""Planning jobs of a batch for one machine, one after another: the first holds it for all, the others follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from launcher.approval import Approval
from launcher.batch.file import Item, has_data_of
from launcher.clock import Clock
from launcher.errors import BadInputError, RefusedError
from launcher.home import Home
from launcher.money import Usd
from launcher.plan import Wishes
from launcher.plan.ceiling import RUN_ROOM
from launcher.workflow import Follower, Planned, plan_job

Offer = tuple[str, str]  # provider, offer id


@dataclass(frozen=True)
class Sharing:
    """Plans jobs on one offer; `approval` is the batch's as it holds for a job, None where it does not cover it."""

    home: Home
    clock: Clock
    wishes: Wishes
    approval: Callable[[int], Approval | None]

    def share(self, first: Item, alone: Planned, others: Sequence[Item], offer: Offer,
              left: Usd | None) -> tuple[Planned, list[Follower]] | None:  # fmt: skip
        """The first job's plan, which keeps room for as many of the others as its money carries, and theirs.

        `alone` is the first one's plan by itself, `left` what the batch has (USD; None: it is free). None where not
        even two fit on the offer now.
        """
        fitting = [(item, found) for item in others if (found := self._on(item, alone, offer, 0.0, None))]
        while fitting:
            seconds = [found.plan.choice.next_s * RUN_ROOM for _, found in fitting]
            head = self._on(first, alone, offer, sum(seconds), left)
            then = [self._follower(item, alone, offer, sum(seconds[n + 1 :])) for n, (item, _) in enumerate(fitting)]
            followers = [each for each in then if each is not None]
            if head is not None and len(followers) == len(then):
                return head, followers
            fitting.pop()
        return None

    def _follower(self, item: Item, alone: Planned, offer: Offer, after_s: float) -> Follower | None:
        found, approval = self._on(item, alone, offer, after_s, None), self.approval(item.index)
        return None if found is None or approval is None else Follower(found.plan, approval, item.index)

    def _on(self, item: Item, alone: Planned, offer: Offer, after_s: float, left: Usd | None) -> Planned | None:
        """The job's plan where it is one on this very offer, with `after_s` kept there, and inside its approval."""
        approval = self.approval(item.index)
        if approval is None or not has_data_of(item):
            return None
        room = {offer: after_s} if after_s else {}
        wishes = replace(self.wishes, within=approval.allowed, keep=offer, after_s=room)
        try:
            found = plan_job(item.job, self.home, self.clock, wishes, most_usd=left, unspent=left is None,
                             market=alone.market)  # fmt: skip
        except (RefusedError, BadInputError):
            return None
        choice = found.plan.choice.offer
        return found if (choice.provider, choice.offer_id) == offer and approval.covers(found.plan) else None
