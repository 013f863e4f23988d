"""One job against many offers: what is the same for all is computed once, what differs is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.estimate.arithmetic import arithmetic
from launcher.estimate.cost import expected_floats
from launcher.estimate.judgement import Estimate
from launcher.job import Job
from launcher.offers.offer import Offer
from launcher.prepare import Prepared

if TYPE_CHECKING:
    from launcher.ledger import Throughput


class Weighed(NamedTuple):
    """An offer in a few numbers, to rank thousands by. Dollars are floats: `expected_usd` is for what is kept."""

    fits: bool
    usd_p50: float
    usd_p90: float
    seconds_p50: float
    seconds_p90: float
    estimate: Estimate


class Estimator:
    """One for each job. `weigh` is for all offers, `judge` for one; both remember what they have seen.

    `measured` are the ledger's rows of earlier runs, of any GPU: the newest weigh most.
    """

    def __init__(self, job: Job, prepared: Prepared, measured: Sequence[Throughput] = ()) -> None:
        self._job, self._prepared, self._measured = job, prepared, tuple(measured)
        self._seen: dict[tuple[Any, ...], Estimate] = {}

    def judge(self, offer: Offer) -> Estimate:
        """Whether the job fits on this offer, how long it takes, what `auto` becomes there.

        Offers that differ only in price share one Estimate object: identity may be used to group them.
        """
        key = (
            offer.provider, offer.via, offer.gpu, offer.count, offer.vram_gb, offer.inet_down_mbps,
            offer.inet_up_mbps, offer.reliability, offer.trust, offer.boot_s,
        )  # fmt: skip
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = arithmetic(self._job, self._prepared, offer)
        return found

    def weigh(self, offer: Offer) -> Weighed:
        """The same with the expected cost: (fits, usd p50, p90, seconds p50, p90, estimate). Cheap: 30,000 offers."""
        made = self.judge(offer)
        p50, p90 = expected_floats(offer, made)
        return Weighed(made.fits, p50, p90, made.seconds_p50, made.seconds_p90, made)


def estimate(job: Job, prepared: Prepared, offer: Offer) -> Estimate:
    """One job on one offer, without what was measured."""
    return Estimator(job, prepared).judge(offer)
