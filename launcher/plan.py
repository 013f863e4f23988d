"""The Plan: a Job plus ranked Offers, an Estimate, a ceiling and a deadline; a frozen value with a digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from launcher.budgets import Budget
from launcher.errors import RefusedError
from launcher.estimate import Estimate, estimate
from launcher.job import Job
from launcher.money import ZERO, Usd
from launcher.offers.offer import Offer
from launcher.prepare import Prepared


class Candidate(BaseModel):
    """One offer, judged: does it fit, how long, how much, who ends it if this machine dies."""

    model_config = ConfigDict(frozen=True)

    offer: Offer
    fits: bool
    why: str
    estimate: Estimate
    usd_p50: Usd
    usd_p90: Usd
    released_by: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Flat, as `plan --json` lists it."""
        return {
            **self.offer.model_dump(mode="json"),
            "fits": self.fits,
            "why": self.why,
            "hours_p50": round(self.estimate.seconds_p50 / 3600, 4),
            "hours_p90": round(self.estimate.seconds_p90 / 3600, 4),
            "usd_p50": str(self.usd_p50),
            "usd_p90": str(self.usd_p90),
            "released_by": list(self.released_by),
            "estimate_source": self.estimate.source,
            "needs_gb": self.estimate.needs_gb,
        }


class Plan(BaseModel):
    """What will be done, where, for at most how much, by when. `digest` covers all of it."""

    model_config = ConfigDict(frozen=True)

    job_path: str
    recipe: str
    spec: dict[str, Any]
    data: dict[str, Any]
    gate: dict[str, Any] | None
    candidates: tuple[Candidate, ...]
    chosen: int
    ceiling_usd: Usd
    deadline_h: float
    worst_case_usd: Usd
    worst_case: str
    budget: str
    on_overrun: str

    @property
    def choice(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen]

    @property
    def run_key(self) -> str:
        """The same for the same recipe, settings and data: one live run at a time has it."""
        return _digest({"recipe": self.recipe, "spec": self.spec, "data": self.data, "gate": self.gate})

    @property
    def digest(self) -> str:
        """SHA-256 over every field (prices' timestamps included)."""
        return _digest(self.model_dump(mode="json"))

    def as_json(self, budget: Budget) -> dict[str, Any]:
        """What `launcher plan --json` prints."""
        remaining = {name: str(getattr(budget, name)) for name in ("per_run_usd", "per_day_usd", "per_month_usd")}
        return {
            "digest": self.digest,
            "chosen": self.choice.as_json(),
            "candidates": [candidate.as_json() for candidate in self.candidates],
            "ceiling_usd": str(self.ceiling_usd),
            "deadline_h": self.deadline_h,
            "worst_case_usd": str(self.worst_case_usd),
            "worst_case": self.worst_case,
            "budget": {"name": self.budget, "remaining_usd": remaining},
            "spec": self.spec,
            "data": self.data,
        }


def make_plan(job: Job, prepared: Prepared, offers: list[tuple[Offer, tuple[str, ...]]], budget_name: str,
              budget: Budget) -> Plan:  # fmt: skip
    """Judge every offer and choose; raises RefusedError (exit 4) with each reason when nothing fits."""
    candidates = []
    for offer, released_by in offers:
        guess = estimate(job, prepared, offer)
        fits, why = _fits(offer, guess, budget)
        hours50, hours90 = Usd(round(guess.seconds_p50)), Usd(round(guess.seconds_p90))
        candidates.append(
            Candidate(
                offer=offer, fits=fits, why=why, estimate=guess, usd_p50=Usd(offer.usd_per_hour * hours50 / 3600),
                usd_p90=Usd(offer.usd_per_hour * hours90 / 3600), released_by=released_by,
            )
        )  # fmt: skip
    order = sorted(range(len(candidates)), key=lambda i: (not candidates[i].fits, candidates[i].usd_p50))
    if not order or not candidates[order[0]].fits:
        reasons = "; ".join(f"{c.offer.provider} ({c.offer.gpu}): {c.why}" for c in candidates) or "no offers at all"
        raise RefusedError(
            f"nothing fits: {reasons}.",
            fix="Lower max_steps, raise the budget's max_hours, or run where there is a GPU that fits.",
        )
    return Plan(
        job_path=str(job.path),
        recipe=job.recipe,
        spec=settings(job),
        data=prepared.facts(),
        gate=job.gate.model_dump(mode="json") if job.gate else None,
        candidates=tuple(candidates),
        chosen=order[0],
        ceiling_usd=ZERO,
        deadline_h=budget.max_hours,
        worst_case_usd=ZERO,
        worst_case="this machine is yours: nothing can be charged",
        budget=budget_name,
        on_overrun=job.on_overrun,
    )


def settings(job: Job) -> dict[str, Any]:
    """The recipe's settings without the data fields: the user's own and every default, written out."""
    from launcher.job import recipe_module

    held = job.spec.model_dump(mode="json")
    return {name: value for name, value in held.items() if name not in recipe_module(job.recipe).DATA_FIELDS}


def _fits(offer: Offer, guess: Estimate, budget: Budget) -> tuple[bool, str]:
    if offer.count and guess.needs_gb > offer.vram_gb:
        return False, f"needs {guess.needs_gb:.1f} GB of GPU memory, {offer.vram_gb:.1f} GB are free"
    hours = guess.seconds_p90 / 3600
    if hours > budget.max_hours:
        return False, f"may take {hours:.1f} h, the budget allows {budget.max_hours:g} h"
    where = "this machine costs nothing" if offer.provider == "local" else f"${offer.usd_per_hour}/h"
    return True, where + ("" if offer.count else "; no GPU, but short enough for the CPU")


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
