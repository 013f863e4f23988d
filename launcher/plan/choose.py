"""Judges every offer and chooses: by the expected cost of the whole run, this machine first where it fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from launcher.budgets import Budget
from launcher.errors import BadInputError, RefusedError
from launcher.estimate import Estimator, expected_usd
from launcher.job import Job
from launcher.ledger.caps import Caps
from launcher.money import ZERO, Usd
from launcher.offers import Market
from launcher.offers.offer import Offer
from launcher.plan.ceiling import IDLE_NIGHT_H, ceiling_of, idle_usd, worst_case
from launcher.plan.engines import with_engine
from launcher.plan.model import Allowed, Candidate, Ceiling, LeftOut, Plan, settings
from launcher.plan.nodes import of_nodes
from launcher.plan.ranking import Judged, Ranking
from launcher.plan.rules import Rules
from launcher.prepare import Prepared
from launcher.providers.traits import Traits, traits_of

KEPT = 12  # candidates that fit and are listed; the rest are counted
KEPT_INSTEAD = 3  # of whatever kind
KEPT_UNFIT = 6  # that do not, one a reason

MOST_FAILURES = 0.5  # above it, one more attempt is not enough: the ceiling holds one

Prefer = Literal["cheapest", "fastest", "local"]


@dataclass(frozen=True)
class Wishes:
    """What the user asked of a plan beside the job file."""

    provider: str | None = None
    gpu: str | None = None
    prefer: Prefer | None = None
    offers: Path | None = None  # --offers FILE: these prices instead of asking anyone
    keep: tuple[str, str] | None = None  # (provider, offer id) that was approved: stay with it where it still fits
    within: Allowed | None = None  # choose inside this approval where anything fits
    most_usd: Usd | None = None  # and under its ceiling
    after_s: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by offer: kept for runs to follow there


@dataclass(frozen=True)
class Purse:
    """What the budget is, and what it has left (USD, by cap)."""

    caps: Caps
    budget: Budget
    remaining: dict[str, Usd]

    @property
    def now_usd(self) -> Usd:
        """What one run may cost today."""
        return min(self.remaining.values())


def make_plan(job: Job, prepared: Prepared, market: Market, purse: Purse, estimator: Estimator,
              wishes: Wishes) -> Plan:  # fmt: skip
    """Judge every offer and choose; raises RefusedError (exit 4) with the reasons when nothing fits."""
    rules = Rules(job, purse.budget, wishes.provider, wishes.gpu)
    judge = _Judge(rules, purse, wishes)
    refused: dict[str, list[Offer]] = defaultdict(list)
    allowed: list[Offer] = []
    for offer in of_nodes(with_engine(market.offers, job.resources.via), job.resources.nodes):
        why = rules.refusal(offer)
        if why is None:
            allowed.append(offer)
        else:
            refused[why].append(offer)
    here = [offer for offer in allowed if offer.provider == "local"]
    ranking = Ranking((offer for offer in allowed if offer.provider != "local"), estimator)
    at_home = sorted((ranking.judge(offer) for offer in here), key=lambda each: each.guess.seconds_p50)
    local = next(filter(judge.fits, at_home), None)
    cheapest = next(filter(judge.fits, ranking.by_cost()), None)
    fastest = next(filter(judge.fits, ranking.by_time()), None) if cheapest else None
    choice = _inside(wishes, ranking, judge) or _choose(wishes, local, cheapest, fastest)
    if choice is None:
        raise _nothing_fits(job, ranking, refused, market)
    instead = _instead(ranking, judge, choice)
    listed = _listed(ranking, judge, [choice, cheapest, fastest, local, *instead])
    candidates = (*(_candidate(each, judge) for each in listed), *_unfit(ranking, judge))
    place = {id(each): index for index, each in enumerate(listed)}
    traits = traits_of(choice.offer)
    assert traits is not None  # the rules let no other through
    worst_usd, worst_words = worst_case(choice.offer, choice.guess, traits)
    ceiling = judge.ceiling(choice)
    inside = _inside_ceiling(listed, judge, ceiling.usd, choice)
    return Plan(
        job_path=str(job.path),
        recipe=job.recipe,
        asked=settings(job),
        data=prepared.facts(),
        gate=job.gate.model_dump(mode="json") if job.gate else None,
        candidates=candidates,
        chosen=place[id(choice)],
        cheapest=place.get(id(cheapest)),
        fastest=place.get(id(fastest)),
        local=place.get(id(local)) if local else _index_of_local(candidates),
        left_out=tuple(_left_out(ranking, refused, listed)),
        considered=len(market.offers),
        sources=tuple(
            {"name": s.name, "ok": s.ok, "asked": s.asked, "error": s.error, "as_of": s.as_of, "stale": s.stale}
            for s in market.sources
        ),
        allowed=Allowed(
            providers=tuple(sorted({each.offer.provider for each in inside})),
            max_usd_per_hour=ceiling.max_usd_per_hour,
            trust=tuple(sorted({each.offer.trust for each in inside})),
            sensitivity=job.data.sensitivity,
            budget=purse.caps.budget,
            instead_usd_per_hour=max(judge.ceiling(each).max_usd_per_hour for each in inside),
        ),
        worst_case_usd=worst_usd,
        worst_case=worst_words,
        idle_night_usd=idle_usd(choice.offer, choice.guess, IDLE_NIGHT_H) if ceiling.usd else ZERO,
        budget=purse.caps.budget,
        caps={name: str(value) if isinstance(value, Usd) else value for name, value in asdict(purse.caps).items()},
        rules=purse.budget.model_dump(mode="json"),
        remaining_usd=purse.remaining,
        on_overrun=job.on_overrun,
        nodes=job.resources.nodes,
    )


class _Judge:
    """Does it fit the budget, too: worked out once an offer, only where it matters."""

    def __init__(self, rules: Rules, purse: Purse, wishes: Wishes) -> None:
        self._rules, self._purse, self._wishes = rules, purse, wishes

    def fits(self, each: Judged) -> bool:
        """Whether the machine, the hours and the money are enough; says why not in `each`."""
        if each.why_not is None and each.ceiling is None:
            each.why_not = self._too_much(each)
        return each.why_not is None

    def _traits(self, offer: Offer) -> Traits:
        """The provider's, with the patience that the job has."""
        traits, patience_s = traits_of(offer) or _unknown(offer), self._rules.provision_timeout_s
        return traits if patience_s is None else replace(traits, provision_timeout_s=patience_s)

    def ceiling(self, each: Judged) -> Ceiling:
        """The most a run there may cost."""
        if each.ceiling is None:
            traits, budget = self._traits(each.offer), self._purse.budget
            caps, rate, within = [self._purse.now_usd], None, self._wishes.within
            if within is not None and within.covers(each.offer):
                rate = within.max_usd_per_hour
                caps += [self._wishes.most_usd] if self._wishes.most_usd is not None else []
            each.ceiling = ceiling_of(
                each.offer, each.guess, traits, max_rate=budget.max_usd_per_hour, max_hours=budget.max_hours,
                cap=min(caps), approved_rate=rate, after_s=self._after_s(each),
            )  # fmt: skip
        return each.ceiling

    def _after_s(self, each: Judged) -> float:
        return self._wishes.after_s.get((each.offer.provider, each.offer.offer_id), 0.0)

    def _too_much(self, each: Judged) -> str | None:
        budget, hours = self._purse.budget, (each.guess.seconds_p90 + self._after_s(each)) / 3600
        if each.guess.failure_chance >= MOST_FAILURES:
            return f"a machine like this fails {100 * each.guess.failure_chance:.0f}% of such runs"
        if hours > budget.max_hours:
            return f"may take {hours:,.1f} h, the budget allows {budget.max_hours:g} h"
        most = self.ceiling(each).usd
        if most > budget.per_run_usd:
            return f"may cost ${most}, the budget allows ${budget.per_run_usd} a run"
        short = [name for name, left in self._purse.remaining.items() if most > left]
        if short:
            each.waits = True
            left = self._purse.remaining[short[0]]
            return f"may cost ${most}, the budget has ${left} left {_PERIODS.get(short[0], 'now')}"
        return None


_PERIODS = {"per_day_usd": "today", "per_month_usd": "this month", "batch_usd": "in the batch"}


def _inside(wishes: Wishes, ranking: Ranking, judge: _Judge) -> Judged | None:
    """The choice inside an approval that was given: the very offer where it still is in it, else the cheapest."""
    within = wishes.within
    if within is None:
        return None

    def covered(each: Judged) -> bool:
        if not (within.covers(each.offer) and judge.fits(each)):
            return False
        return wishes.most_usd is None or judge.ceiling(each).usd <= wishes.most_usd

    same = (each for each in ranking.by_cost() if (each.offer.provider, each.offer.offer_id) == wishes.keep)
    return next(filter(covered, same), None) or next(filter(covered, ranking.by_cost()), None)


def _choose(wishes: Wishes, local: Judged | None, cheapest: Judged | None,
            fastest: Judged | None) -> Judged | None:  # fmt: skip
    if wishes.prefer == "local":
        return local
    if wishes.prefer == "fastest":
        both = [each for each in (local, fastest) if each is not None]
        return min(both, key=lambda each: each.guess.seconds_p50, default=None)
    return local or cheapest  # at price 0 this machine is the cheapest, too


def _instead(ranking: Ranking, judge: _Judge, choice: Judged) -> list[Judged]:
    """The cheapest ones beside the choice, of whatever kind: one of them is rented where it is not to be had."""
    if choice.offer.usd_per_hour == ZERO:
        return []
    fitting = (each for each in ranking.by_cost() if each is not choice and judge.fits(each))
    return list(islice(fitting, KEPT_INSTEAD))


def _listed(ranking: Ranking, judge: _Judge, always: Iterable[Judged | None]) -> list[Judged]:
    """The ones worth showing, best first: one of each kind while there are many."""
    shown = {id(each): each for each in ranking.best_of_each_kind(judge.fits)[:KEPT]}
    shown |= {id(each): each for each in always if each is not None}
    return sorted(shown.values(), key=lambda each: (each.p50, each.guess.seconds_p50, each.offer.offer_id))


def _unfit(ranking: Ranking, judge: _Judge) -> tuple[Candidate, ...]:
    """The cheapest offer of each reason, this machine always among them."""
    first: dict[str, Judged] = {}
    cheapest = [ranking.judge(min(offers, key=_price)) for offers in ranking.unfit.values()]
    for each in sorted([*ranking.judged, *cheapest], key=lambda each: each.p50):
        if each.why_not is not None:
            first.setdefault("local" if each.offer.provider == "local" else _kind_of(each.why_not), each)
    chosen = sorted(first.values(), key=lambda each: (each.offer.provider != "local", each.p50))[:KEPT_UNFIT]
    return tuple(_candidate(each, judge) for each in chosen)


def _kind_of(why: str) -> str:
    """A reason without its figures."""
    return "".join(c for c in why if not (c.isdigit() or c in ".,"))


def _price(offer: Offer) -> Usd:
    return offer.usd_per_hour


def _left_out(ranking: Ranking, refused: dict[str, list[Offer]], listed: list[Judged]) -> list[LeftOut]:
    """Everything that is not listed, by reason: the most numerous first, with the cheapest as an example."""
    reasons = {why: (len(offers), min(offers, key=_price), why) for why, offers in refused.items()}
    for why, offers in ranking.unfit.items():
        _count(reasons, _kind_of(why), min(offers, key=_price), why, len(offers))
    judged = [each for each in ranking.judged if each.offer.provider != "local"]
    unfit = [each for each in judged if each.why_not is not None and each.guess.fits]
    for each in unfit:  # the cheapest first
        _count(reasons, _kind_of(each.why_not or ""), each.offer, each.why_not or "", 1)
    shown = {id(each) for each in listed}
    lost = [each for each in judged if each.why_not is None and id(each) not in shown]
    rest = len(ranking) - len(unfit) - sum(each.offer.provider != "local" for each in listed)
    if rest > 0 and lost:
        _count(reasons, "dearer in all", lost[0].offer, "dearer in all", rest)
    return [
        LeftOut(count=count, why=why, example=f"{_named(offer)} ${offer.usd_per_hour}/h")
        for count, offer, why in sorted(reasons.values(), key=lambda item: -item[0])
    ]


def _count(reasons: dict[str, tuple[int, Offer, str]], kind: str, offer: Offer, why: str, more: int) -> None:
    count, first, words = reasons.get(kind, (0, offer, why))
    reasons[kind] = (count + more, first, words)


def _candidate(each: Judged, judge: _Judge) -> Candidate:
    traits = traits_of(each.offer)
    ceiling = judge.ceiling(each)
    p50, p90 = expected_usd(each.offer, each.guess)
    if each.why_not is not None:
        why = each.why_not
    elif each.offer.usd_per_hour == ZERO:
        why = "this machine costs nothing" + ("" if each.offer.count else "; no GPU, but short enough for the CPU")
    else:
        machines = f"{each.offer.nodes} machines, " if each.offer.nodes > 1 else ""
        why = f"{machines}${each.offer.usd_per_hour}/h, expected ${p50} in all, at most ${ceiling.usd}"
    return Candidate(
        offer=each.offer, fits=each.why_not is None, why=why, estimate=each.guess, usd_p50=p50, usd_p90=p90,
        ceiling=ceiling, released_by=traits.released_by if traits else (),
    )  # fmt: skip


def _index_of_local(candidates: tuple[Candidate, ...]) -> int | None:
    return next((index for index, candidate in enumerate(candidates) if candidate.is_local), None)


def _inside_ceiling(listed: list[Judged], judge: _Judge, ceiling: Usd, choice: Judged) -> list[Judged]:
    """What may be rented under this approval: the choice, and the others shown that its amount pays for, too.

    Where the choice is not to be had, the next one needs no money for one more attempt.
    """
    if ceiling == ZERO:
        return [choice]
    paid = (each for each in listed if each.offer.usd_per_hour > ZERO and each.why_not is None)
    return [choice, *(e for e in paid if judge.ceiling(e).usd - judge.ceiling(e).retry_usd <= ceiling)]


def _nothing_fits(job: Job, ranking: Ranking, refused: dict[str, list[Offer]], market: Market) -> RefusedError:
    """Why nothing fits, and what would help; `when` is `now` where it will fit once money is free again."""
    if not market.offers:
        asked = "; ".join(f"{s.name}: {s.error}" for s in market.sources if not s.ok)
        return RefusedError(f"there are no offers at all ({asked or 'no source was asked'}).", fix="launcher offers")
    reasons: dict[str, str] = {}
    for each in sorted(ranking.judged, key=lambda each: (each.offer.provider != "local", each.p50)):
        if each.why_not is not None:
            reasons.setdefault(_kind_of(each.why_not), f"{_named(each.offer)}: {each.why_not}")
    for why, offers in [*ranking.unfit.items(), *refused.items()]:
        cheapest = min(offers, key=_price)
        reasons.setdefault(_kind_of(why), f"{_named(cheapest)}: {why}")
    shown = [*reasons.values(), *(f"{s.name}: {s.error}" for s in market.sources if not s.ok)]
    more = f"; and {len(shown) - 5} more reasons" if len(shown) > 5 else ""
    fix = "Lower max_steps, raise the budget's caps or max_hours, or allow more providers (launcher offers)."
    if job.resources.nodes > 1:
        fix = "Take one machine (resources: nodes: 1), or a cloud of SkyPilot's that rents several as one."
    error = RefusedError(f"nothing fits: {'; '.join(shown[:5])}{more}.", fix=fix, file=job.path)
    error.facts = {"when": "now" if any(each.waits for each in ranking.judged) else "never"}
    return error


def _named(offer: Offer) -> str:
    return "this machine" if offer.provider == "local" else f"{offer.provider} {offer.gpu}"


def _unknown(offer: Offer) -> Traits:
    raise BadInputError("no such provider.", key="provider", value=offer.provider)
