"""A batch before its YES: each job's own plan, what all may cost, what packing would save."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from launcher.batch.file import Batch, Item
from launcher.batch.packing import Pack, pack, packable
from launcher.batch.terms import Packed
from launcher.budgets import Budget, choose_budget, find_budgets, load_budgets
from launcher.clock import Clock
from launcher.errors import BadInputError, RefusedError
from launcher.home import Home
from launcher.ledger import Caps
from launcher.money import ZERO, Usd
from launcher.offers import Market
from launcher.plan import Allowed, Plan, Wishes
from launcher.workflow import Planned, plan_job, refuse_unrentable


@dataclass(frozen=True)
class Prospect:
    """One job of the batch with its plan, or with the reason why it can never run in it."""

    item: Item
    planned: Planned | None
    why: str = ""


@dataclass(frozen=True)
class Outlook:
    """What all jobs of a batch come to. Money in USD; hours are the sum over the jobs."""

    prospects: tuple[Prospect, ...]
    packs: tuple[Pack, ...]
    budget_name: str
    budget: Budget
    caps: Caps
    amount: Usd  # what is asked to be approved

    @property
    def plans(self) -> list[Planned]:
        """The plans of the jobs that can run."""
        return [each.planned for each in self.prospects if each.planned is not None]

    @property
    def ceilings(self) -> Usd:
        """The most all jobs together may cost."""
        return sum((planned.plan.ceiling_usd for planned in self.plans), ZERO)

    @property
    def expected(self) -> Usd:
        """What all jobs together are expected to cost (p50)."""
        return sum((planned.plan.choice.usd_p50 for planned in self.plans), ZERO)

    @property
    def digest(self) -> str:
        """SHA-256 over the plans that were shown."""
        return hashlib.sha256(json.dumps([planned.plan.digest for planned in self.plans]).encode()).hexdigest()

    @property
    def allowed(self) -> dict[str, dict[str, object]]:
        """By job: whom an approval lets it rent from, at which rate."""
        return {
            str(each.item.index): self._allowed(each.item.index, each.planned.plan).model_dump(mode="json")
            for each in self.prospects if each.planned is not None
        }  # fmt: skip

    @property
    def packed(self) -> list[Packed]:
        """The packs, as they are approved."""
        return [Packed(each.offer, each.indexes) for each in self.packs]

    def _allowed(self, item: int, plan: Plan) -> Allowed:
        """What the plan allows, and the machine that the job is to share."""
        offer = next((each.offer for each in self.packs if item in each.indexes), None)
        shared = next((c for c in plan.candidates if (c.offer.provider, c.offer.offer_id) == offer), None)
        allowed = plan.allowed
        if shared is None:
            return allowed
        return allowed.model_copy(update={
            "providers": tuple(sorted({*allowed.providers, shared.offer.provider})),
            "trust": tuple(sorted({*allowed.trust, shared.offer.trust})),
            "max_usd_per_hour": max(allowed.max_usd_per_hour, shared.ceiling.max_usd_per_hour),
        })  # fmt: skip


def look_ahead(batch: Batch, home: Home, clock: Clock, wishes: Wishes) -> Outlook:
    """Plan every job as if nothing had been spent yet. Spends nothing; raises BadInputError for a wrong job."""
    name, budget, caps = budget_of(batch, home)
    wanted = batch.file.concurrency
    if wanted is not None and wanted > budget.concurrent_runs:
        raise BadInputError(
            f"budget {name} allows {budget.concurrent_runs} at a time.", file=batch.path,
            line=batch.config.line_of(("concurrency",)), key="concurrency", value=wanted,
            fix=f"Write {budget.concurrent_runs}, or raise concurrent_runs in budgets.yaml.",
        )  # fmt: skip
    prospects = []
    markets: dict[tuple[str, ...], Market] = {}  # by the providers that jobs name: prices are asked for once
    for item in batch.items:
        planned, why = None, ""
        if item.same_as is None:
            try:
                planned = plan_job(
                    item.job, home, clock, wishes, most_usd=batch.file.total_usd, unspent=True,
                    market=markets.get(item.job.resources.providers),
                )  # fmt: skip
                markets[item.job.resources.providers] = planned.market
                if not planned.plan.is_free:
                    refuse_unrentable(planned.plan, home, clock)
            except RefusedError as error:
                planned, why = None, error.problem
        prospects.append(Prospect(item, planned, why))
    jobs = [
        packable(each.item.index, each.planned.plan, each.item.job.resources.nodes)
        for each in prospects if each.planned is not None
    ]  # fmt: skip
    packs = tuple(pack(jobs, budget.max_hours)) if batch.file.pack else ()
    ceilings = sum((each.planned.plan.ceiling_usd for each in prospects if each.planned), ZERO)
    asked = batch.file.total_usd or Usd(min(ceilings, budget.per_month_usd))
    amount = ZERO if ceilings == ZERO else asked
    return Outlook(tuple(prospects), packs, name, budget, caps, amount)


def budget_of(batch: Batch, home: Home) -> tuple[str, Budget, Caps]:
    """The one budget of all jobs; raises BadInputError when their folders hold different ones under its name."""
    found: dict[Path | None, tuple[str, Budget, Caps]] = {}
    for item in batch.items:
        file = find_budgets(item.job.path.parent, Path.cwd(), home.root)
        if file not in found:
            budgets = load_budgets(file)
            try:
                name, budget = choose_budget(budgets, item.job.budget, file)
            except BadInputError as error:
                here = batch.path if batch.file.budget else item.job.path
                line = batch.config.line_of(("budget",)) if batch.file.budget else None
                raise BadInputError(
                    f"{file or 'the built-in budgets'} has no budget of this name.", fix=error.fix, file=here,
                    line=line, key="budget", value=error.value,
                ) from None  # fmt: skip
            found[file] = (name, budget, Caps.of(name, budget, budgets.time_zone))
    first, *others = found.values()
    if any(each != first for each in others):
        raise BadInputError(
            f"its jobs find different budgets of this name: {', '.join(map(str, found))}.", file=batch.path,
            key="budget", value=first[0], fix="Put the jobs beside one budgets.yaml.",
        )  # fmt: skip
    return first
