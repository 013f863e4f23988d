"""Tens of thousands of offers in the exact order of their cost or time, each judged only when its turn comes."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from launcher.estimate import Estimate, Estimator
from launcher.offers.offer import Offer
from launcher.plan.model import Ceiling

CLOSEST_OF_A_KIND = 3  # offers of one kind that are judged to find its best


@dataclass(eq=False)
class Judged:
    """An offer with its estimate and cost; its ceiling is worked out only when somebody asks."""

    offer: Offer
    guess: Estimate
    p50: float  # USD expected in all: to rank by, never to show or to reserve
    why_not: str | None
    ceiling: Ceiling | None = None
    waits: bool = False  # it would fit if runs that are under way cost less than they hold, or on another day


@dataclass(frozen=True)
class _Floor:
    """No run on this offer is faster or cheaper than this: the same GPU that never fails, its line rounded up."""

    usd: float
    seconds: float
    offer: Offer


class Ranking:
    """The offers to rent that the rules allow, by cost or by time.

    An exact judgement of each would cost most of a plan's time, and nearly all are never looked at. A lower bound
    is cheap: a machine of the same GPU that never fails, its line rounded up, which is judged once a kind. Offers
    are judged in the order of their bounds, and handed out as soon as no bound is below them: the order is exact.
    """

    def __init__(self, offers: Iterable[Offer], estimator: Estimator) -> None:
        self._estimator = estimator
        self._judged: dict[int, Judged] = {}
        self._floors: list[_Floor] = []
        self.unfit: dict[str, list[Offer]] = defaultdict(list)  # why -> machines that the method does not fit on
        ideals: dict[tuple[object, ...], Estimate] = {}
        for offer in offers:
            down, up = _rounded_up(offer.inet_down_mbps), _rounded_up(offer.inet_up_mbps)
            key = (offer.provider, offer.via, offer.gpu, offer.count, offer.vram_gb, offer.trust, down, up,
                   offer.boot_s is None)  # fmt: skip
            ideal = ideals.get(key)
            if ideal is None:
                ideal = ideals[key] = estimator.judge(_perfect(offer, down, up))
            if not ideal.fits:
                self.unfit[ideal.why_not].append(offer)
            else:
                usd = float(offer.usd_per_hour) / 3600 * ideal.seconds_p50
                self._floors.append(_Floor(usd, ideal.seconds_p50, offer))

    def __len__(self) -> int:
        return len(self._floors)

    @property
    def judged(self) -> list[Judged]:
        """Every offer that was judged so far, the cheapest first."""
        return sorted(self._judged.values(), key=lambda each: (each.p50, each.offer.offer_id))

    def judge(self, offer: Offer) -> Judged:
        """One offer, exactly."""
        found = self._judged.get(id(offer))
        if found is None:
            weighed = self._estimator.weigh(offer)
            why_not = None if weighed.fits else weighed.estimate.why_not or "does not fit"
            found = self._judged[id(offer)] = Judged(offer, weighed.estimate, weighed.usd_p50, why_not)
        return found

    def by_cost(self) -> Iterator[Judged]:
        """The offers, the lowest expected cost first; of two at the same cost the faster."""
        floors = sorted((floor.usd, floor.seconds, n) for n, floor in enumerate(self._floors))
        return self._exact(floors, lambda each: (each.p50, each.guess.seconds_p50))

    def by_time(self) -> Iterator[Judged]:
        """The offers, the shortest run first; of two as short the cheaper."""
        floors = sorted((floor.seconds, floor.usd, n) for n, floor in enumerate(self._floors))
        return self._exact(floors, lambda each: (each.guess.seconds_p50, each.p50))

    def best_of_each_kind(self, fits: Callable[[Judged], bool]) -> list[Judged]:
        """For each provider, GPU and kind of host, one of its cheapest that fits; the cheapest kind first."""
        kinds: dict[tuple[object, ...], list[_Floor]] = defaultdict(list)
        for floor in self._floors:
            offer = floor.offer
            kinds[offer.provider, offer.gpu, offer.count, offer.trust].append(floor)
        best = []
        for floors in kinds.values():
            closest = heapq.nsmallest(CLOSEST_OF_A_KIND, floors, key=lambda floor: floor.usd)
            judged = [each for floor in closest if fits(each := self.judge(floor.offer))]
            best += sorted(judged, key=lambda each: each.p50)[:1]
        return sorted(best, key=lambda each: each.p50)

    def _exact(self, bounds: list[tuple[float, float, int]],
               measure: Callable[[Judged], tuple[float, float]]) -> Iterator[Judged]:  # fmt: skip
        waiting: list[tuple[tuple[float, float], str, int, Judged]] = []
        for first, second, n in bounds:
            while waiting and waiting[0][0] <= (first, second):
                yield heapq.heappop(waiting)[-1]
            each = self.judge(self._floors[n].offer)
            heapq.heappush(waiting, (measure(each), each.offer.offer_id, n, each))
        while waiting:
            yield heapq.heappop(waiting)[-1]


def _rounded_up(mbps: float | None) -> float | None:
    """A speed that a line of so many Mbps never has, and few such speeds; None where nobody tells."""
    return None if not mbps else 1.5 ** math.ceil(math.log(max(mbps, 1.0), 1.5))


def _perfect(offer: Offer, down: float | None, up: float | None) -> Offer:
    """The same machine where nothing is slower than it must be."""
    boot_s = None if offer.boot_s is None else 0.0
    return offer.model_copy(
        update={"inet_down_mbps": down, "inet_up_mbps": up, "reliability": None, "boot_s": boot_s}
    )
