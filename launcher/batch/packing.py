"""Which jobs of a batch would be cheaper on one machine: set-up, image and base are then paid once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from launcher.money import ZERO, Usd
from launcher.plan import Plan


@dataclass(frozen=True)
class Option:
    """One job on one offer: its expected cost there alone, and the seconds of it that a second job would skip."""

    where: str
    usd_per_hour: Usd
    usd: Usd
    setup_s: float
    seconds_p90: float

    @property
    def setup_usd(self) -> Usd:
        """What the shared part costs."""
        return Usd(self.usd_per_hour * Usd(round(self.setup_s)) / 3600)


@dataclass(frozen=True)
class Packable:
    """A job: its place in the batch, what it must have in common with another, its cost alone, where it fits."""

    index: int
    needs: Hashable  # recipe, image, base, method, nodes
    usd: Usd
    options: Mapping[tuple[str, str], Option]  # by offer: provider, offer id


@dataclass(frozen=True)
class Pack:
    """Jobs that would be cheaper one after another on one machine. `hours_p90` is how long that takes."""

    where: str
    offer: tuple[str, str]  # provider, offer id
    indexes: tuple[int, ...]
    usd: Usd
    separate_usd: Usd
    hours_p90: float

    @property
    def saves_usd(self) -> Usd:
        """What packing saves."""
        return self.separate_usd - self.usd

    def as_json(self) -> dict[str, object]:
        """For the plan of a batch."""
        return {
            "where": self.where, "offer": list(self.offer), "jobs": list(self.indexes), "usd_p50": str(self.usd),
            "separate_usd_p50": str(self.separate_usd), "saves_usd": str(self.saves_usd),
            "hours_p90": round(self.hours_p90, 4),
        }  # fmt: skip


def packable(index: int, plan: Plan, nodes: int = 1) -> Packable:
    """A planned job as packing sees it. One with phi shares its machine with nobody: it is wiped, then released."""
    spec = plan.spec
    needs = (plan.recipe, spec.get("base", spec.get("model")), spec.get("method"), nodes)
    options = {}
    for candidate in plan.candidates:
        offer, guess = candidate.offer, candidate.estimate
        if candidate.fits and plan.allowed.sensitivity != "phi":
            words = f"{offer.provider} {offer.gpu}" + (f" × {offer.count}" if offer.count > 1 else "")
            options[offer.provider, offer.offer_id] = Option(
                words, offer.usd_per_hour, candidate.usd_p50, candidate.set_up_s, guess.seconds_p90
            )
    return Packable(index, needs, plan.choice.usd_p50, options)


def pack(jobs: Sequence[Packable], max_hours: float) -> list[Pack]:
    """The packs that save most, found one after another; jobs in none of them are cheaper alone.

    Never dearer than separate machines: only what saves is packed. A pack runs its jobs one after another and
    must be through, by the p90 of each, within `max_hours`.
    """
    left, packs = list(jobs), []
    while best := _best(left, max_hours):
        packs.append(best)
        left = [job for job in left if job.index not in best.indexes]
    return packs


def _best(jobs: Sequence[Packable], max_hours: float) -> Pack | None:
    groups: dict[tuple[Hashable, tuple[str, str]], list[Packable]] = {}
    for job in jobs:
        for offer in job.options:
            groups.setdefault((job.needs, offer), []).append(job)
    found = [made for (_, offer), group in groups.items() if (made := _on(offer, group, max_hours))]
    return max(found, key=lambda each: (each.saves_usd, len(each.indexes)), default=None)


def _on(offer: tuple[str, str], group: Sequence[Packable], max_hours: float) -> Pack | None:
    """The best pack of these jobs on one offer; None when nothing is saved."""
    setup_s = max(job.options[offer].setup_s for job in group)
    setup_usd = max(job.options[offer].setup_usd for job in group)

    def alone_here(job: Packable) -> Usd:  # without the set-up, which the pack pays once
        return max(ZERO, job.options[offer].usd - job.options[offer].setup_usd)

    chosen: list[Packable] = []
    seconds = setup_s
    for job in sorted(group, key=lambda each: alone_here(each) - each.usd):
        own_s = max(0.0, job.options[offer].seconds_p90 - job.options[offer].setup_s)
        if alone_here(job) < job.usd and seconds + own_s <= 3600 * max_hours:
            chosen.append(job)
            seconds += own_s
    usd = sum((alone_here(job) for job in chosen), setup_usd)
    separate = sum((job.usd for job in chosen), ZERO)
    if len(chosen) < 2 or usd >= separate:
        return None
    indexes = tuple(sorted(job.index for job in chosen))
    return Pack(chosen[0].options[offer].where, offer, indexes, usd, separate, seconds / 3600)
