"""Judges every offer and chooses: by the expected cost of the whole run, this machine first where it fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from launcher.budgets import Budget
from launcher.errors import BadInputError, RefusedError
from launcher.estimate import Estimate, Estimator, expected_usd
from launcher.job import Job
from launcher.ledger.caps import Caps
from launcher.money import ZERO, Usd
from launcher.offers import Market
from launcher.offers.offer import Offer
from launcher.plan.ceiling import IDLE_NIGHT_H, ceiling_of, idle_usd, worst_case
from launcher.plan.model import Allowed, Candidate, Ceiling, LeftOut, Plan, settings
from launcher.plan.rules import Rules
from launcher.prepare import Prepared
from launcher.providers.traits import Traits, traits_of

KEPT = 12  # candidates that fit and are listed; the rest are counted
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


@dataclass
class _Judged:
    """An offer with its estimate and cost; its ceiling is worked out only when somebody asks."""

    offer: Offer
    guess: Estimate
    p50: float  # USD expected in all: to rank by, never to show or to reserve
    why_not: str | None
    ceiling: Ceiling | None = None
    waits: bool = False  # it would fit if runs that are under way cost less than they hold, or on another day


def make_plan(job: Job, prepared: Prepared, market: Market, purse: Purse, estimator: Estimator,
              wishes: Wishes) -> Plan:  # fmt: skip
    """Judge every offer and choose; raises RefusedError (exit 4) with the reasons when nothing fits."""
    rules = Rules(job, purse.budget, wishes.provider, wishes.gpu)
    judge = _Judge(rules, purse, wishes)
    refused: dict[str, list[Offer]] = defaultdict(list)
    judged: list[_Judged] = []
    for offer in market.offers:
        why = rules.refusal(offer)
        if why is None:
            weighed = estimator.weigh(offer)
            guess = weighed.estimate
            judged.append(_Judged(offer, guess, weighed.usd_p50, None if guess.fits else guess.why_not))
        else:
            refused[why].append(offer)
    judged.sort(key=lambda each: (each.p50, each.guess.seconds_p50, each.offer.offer_id))
    rented = [each for each in judged if each.offer.usd_per_hour > ZERO]
    local = next((each for each in judged if each.offer.provider == "local" and judge.fits(each)), None)
    cheapest = next(filter(judge.fits, rented), None)
    by_time = sorted(rented, key=lambda each: (each.guess.seconds_p50, each.p50))
    fastest = next(filter(judge.fits, by_time), None)
    choice = _choose(wishes, local, cheapest, fastest, judged, judge.fits)
    if choice is None:
        raise _nothing_fits(job, purse, judged, refused, market, judge)
    listed = _listed(judged, judge, [choice, cheapest, fastest, local])
    unfit = _unfit(judged, judge)
    candidates = (*(_candidate(each, judge) for each in listed), *unfit)
    place = {id(each): index for index, each in enumerate(listed)}
    traits = traits_of(choice.offer)
    assert traits is not None  # the rules let no other through
    worst_usd, worst_words = worst_case(choice.offer, choice.guess, traits)
    ceiling = judge.ceiling(choice)
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
        left_out=tuple(_left_out(judged, refused, {id(each) for each in listed})),
        considered=len(market.offers),
        sources=tuple(
            {"name": s.name, "ok": s.ok, "error": s.error, "as_of": s.as_of, "stale": s.stale} for s in market.sources
        ),
        allowed=Allowed(
            providers=_providers(listed, judge, ceiling.usd, choice),
            max_usd_per_hour=ceiling.max_usd_per_hour,
            trust=tuple(sorted({rules.trust_of(each.offer) for each in listed})),
            sensitivity=job.data.sensitivity,
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

    def fits(self, each: _Judged) -> bool:
        """Whether the machine, the hours and the money are enough; says why not in `each`."""
        if each.why_not is None and each.ceiling is None:
            each.why_not = self._too_much(each)
        return each.why_not is None

    def ceiling(self, each: _Judged) -> Ceiling:
        """The most a run there may cost."""
        if each.ceiling is None:
            traits, budget = traits_of(each.offer) or _unknown(each.offer), self._purse.budget
            caps, rate, within = [self._purse.now_usd], None, self._wishes.within
            if within is not None and within.covers(each.offer):
                rate = within.max_usd_per_hour
                caps += [self._wishes.most_usd] if self._wishes.most_usd is not None else []
            each.ceiling = ceiling_of(
                each.offer, each.guess, traits, max_rate=budget.max_usd_per_hour, max_hours=budget.max_hours,
                cap=min(caps), approved_rate=rate,
            )  # fmt: skip
        return each.ceiling

    def _too_much(self, each: _Judged) -> str | None:
        budget, hours = self._purse.budget, each.guess.seconds_p90 / 3600
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


def _choose(wishes: Wishes, local: _Judged | None, cheapest: _Judged | None, fastest: _Judged | None,
            judged: list[_Judged], fits: Callable[[_Judged], bool]) -> _Judged | None:  # fmt: skip
    if wishes.within is not None:
        inside = [e for e in judged if wishes.within.covers(e.offer) and fits(e) and _under(e, wishes.most_usd)]
        same = [each for each in inside if (each.offer.provider, each.offer.offer_id) == wishes.keep]
        if inside:
            return (same or inside)[0]
    if wishes.prefer == "local":
        return local
    both = [each for each in (local, cheapest) if each is not None]
    if wishes.prefer == "fastest":
        both = [each for each in (local, fastest) if each is not None]
        return min(both, key=lambda each: each.guess.seconds_p50, default=None)
    if wishes.prefer == "cheapest":
        return min(both, key=lambda each: each.p50, default=None)
    return local or cheapest


def _under(each: _Judged, most: Usd | None) -> bool:
    return most is None or (each.ceiling is not None and each.ceiling.usd <= most)


def _listed(judged: list[_Judged], judge: _Judge, always: Iterable[_Judged | None]) -> list[_Judged]:
    """The ones worth showing, best first: one line a machine type, provider and region while there are many."""
    shown: dict[int, _Judged] = {}
    kinds: set[tuple[str, str, int, str]] = set()
    for each in judged:
        kind = (each.offer.provider, each.offer.gpu, each.offer.count, each.offer.trust)
        if kind not in kinds and judge.fits(each):
            kinds.add(kind)
            shown[id(each)] = each
            if len(shown) == KEPT:
                break
    for chosen in always:
        if chosen is not None:
            shown.setdefault(id(chosen), chosen)
    return sorted(shown.values(), key=lambda each: (each.p50, each.guess.seconds_p50, each.offer.offer_id))


def _unfit(judged: list[_Judged], judge: _Judge) -> tuple[Candidate, ...]:
    """The cheapest offer of each reason, this machine always among them."""
    first: dict[str, _Judged] = {}
    kinds: dict[str, str] = {}
    for each in judged:
        if each.why_not is not None:
            kind = kinds.get(each.why_not) or kinds.setdefault(each.why_not, _kind_of(each.why_not))
            first.setdefault("local" if each.offer.provider == "local" else kind, each)
    chosen = sorted(first.values(), key=lambda each: (each.offer.provider != "local", each.p50))[:KEPT_UNFIT]
    return tuple(_candidate(each, judge) for each in chosen)


def _kind_of(why: str) -> str:
    """A reason without its figures."""
    return "".join(c for c in why if not (c.isdigit() or c in ".,"))


def _left_out(judged: list[_Judged], refused: dict[str, list[Offer]], listed: set[int]) -> list[LeftOut]:
    """Everything that is not listed, by reason: the most numerous first, with the cheapest as an example."""
    count: dict[str, int] = defaultdict(int)
    first: dict[str, tuple[Offer, str]] = {}
    kinds: dict[str, str] = {}
    for each in judged:  # the cheapest first
        if id(each) in listed or each.offer.provider == "local":
            continue
        why = each.why_not or "dearer in all"
        kind = kinds.get(why) or kinds.setdefault(why, _kind_of(why))
        count[kind] += 1
        if kind not in first:
            first[kind] = (each.offer, why)
    for why, offers in refused.items():
        count[why] += len(offers)
        first.setdefault(why, (min(offers, key=lambda offer: offer.usd_per_hour), why))
    found = []
    for kind, (offer, why) in first.items():
        example = f"{offer.provider} {offer.gpu} ${offer.usd_per_hour}/h"
        found.append(LeftOut(count=count[kind], why=why, example=example))
    return sorted(found, key=lambda item: -item.count)


def _candidate(each: _Judged, judge: _Judge) -> Candidate:
    traits = traits_of(each.offer)
    ceiling = judge.ceiling(each)
    p50, p90 = expected_usd(each.offer, each.guess)
    if each.why_not is not None:
        why = each.why_not
    elif each.offer.usd_per_hour == ZERO:
        why = "this machine costs nothing" + ("" if each.offer.count else "; no GPU, but short enough for the CPU")
    else:
        why = f"${each.offer.usd_per_hour}/h, expected ${p50} in all, at most ${ceiling.usd}"
    return Candidate(
        offer=each.offer, fits=each.why_not is None, why=why, estimate=each.guess, usd_p50=p50, usd_p90=p90,
        ceiling=ceiling, released_by=traits.released_by if traits else (),
    )  # fmt: skip


def _index_of_local(candidates: tuple[Candidate, ...]) -> int | None:
    return next((index for index, candidate in enumerate(candidates) if candidate.is_local), None)


def _providers(listed: list[_Judged], judge: _Judge, ceiling: Usd, choice: _Judged) -> tuple[str, ...]:
    """Who may be rented from under this approval: the choice, and the others shown that stay under its ceiling."""
    if ceiling == ZERO:
        return (choice.offer.provider,)
    inside = {e.offer.provider for e in listed if e.offer.usd_per_hour > ZERO and judge.ceiling(e).usd <= ceiling}
    return tuple(sorted({choice.offer.provider, *inside}))


def _nothing_fits(job: Job, purse: Purse, judged: list[_Judged], refused: dict[str, list[Offer]], market: Market,
                  judge: _Judge) -> Exception:  # fmt: skip
    """Why nothing fits, and what would help; `when` is `now` where it will fit once money is free again."""
    if not market.offers:
        asked = "; ".join(f"{s.name}: {s.error}" for s in market.sources if not s.ok)
        return RefusedError(f"there are no offers at all ({asked or 'no source was asked'}).", fix="launcher offers")
    reasons: dict[str, str] = {}
    for each in sorted(judged, key=lambda each: (each.offer.provider != "local", each.p50)):
        judge.fits(each)
        if each.why_not is None:
            continue
        where = "this machine" if each.offer.provider == "local" else f"{each.offer.provider} {each.offer.gpu}"
        reasons.setdefault(_kind_of(each.why_not), f"{where}: {each.why_not}")
    for why, offers in refused.items():
        cheapest = min(offers, key=lambda offer: offer.usd_per_hour)
        reasons.setdefault(why, f"{cheapest.provider} {cheapest.gpu}: {why}")
    shown = list(reasons.values())
    more = f"; and {len(shown) - 5} more reasons" if len(shown) > 5 else ""
    error = RefusedError(
        f"nothing fits: {'; '.join(shown[:5])}{more}.",
        fix="Lower max_steps, raise the budget's caps or max_hours, or allow more providers (launcher offers).",
        file=job.path,
    )
    error.facts = {"when": "now" if any(each.waits for each in judged) else "never"}
    return error


def _unknown(offer: Offer) -> Traits:
    raise BadInputError("no such provider.", key="provider", value=offer.provider)
