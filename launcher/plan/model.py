"""The plan as a value: frozen, printable, with a digest over all of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from launcher.budgets import Sensitivity
from launcher.errors import StateError
from launcher.estimate import Estimate
from launcher.job import Job, recipe_module
from launcher.money import ZERO, Usd
from launcher.offers.offer import Offer, Trust

Asked = dict[str, Any]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


#: Phases of an estimate that a second run on the same machine does not go through again.
SHARED_PHASES = ("provision", "image", "model")


class Ceiling(_Value):
    """The most a run may cost, all attempts included, in its parts. What is reserved before anything is created.

    usd = max_usd_per_hour x (provision_s + run_s + after_s + collect_s + teardown_s) + disk + transfer +
    (attempts - 1) times what a machine that fails typically costs: the longer of provision_s and the estimate's
    lost_s, and its traffic.
    """

    usd: Usd = ZERO
    max_usd_per_hour: Usd = ZERO  # the highest rate this run may be rented at
    provision_s: float = 0.0  # a machine that does not answer by then is released
    run_s: float = 0.0  # all recipes together, transfers included
    after_s: float = 0.0  # kept for the runs that get the machine after this one
    collect_s: float = 0.0
    teardown_s: float = 0.0
    attempts: int = 1
    machine_usd: Usd = ZERO
    disk_usd: Usd = ZERO
    transfer_usd: Usd = ZERO
    retry_usd: Usd = ZERO

    @property
    def deadline_h(self) -> float:
        """From create to the moment at which the machine must be going, hours."""
        return round((self.provision_s + self.run_s + self.after_s + self.collect_s) / 3600, 4)


class Candidate(_Value):
    """One offer, judged: does it fit, how long, how much, who ends it if this machine dies."""

    offer: Offer
    fits: bool
    why: str
    estimate: Estimate
    usd_p50: Usd
    usd_p90: Usd
    ceiling: Ceiling
    released_by: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, at price 0."""
        return self.offer.provider == "local"

    @property
    def set_up_s(self) -> float:
        """Seconds that a second run on the same machine does not spend again."""
        return sum(self.estimate.phases.get(name, 0.0) for name in SHARED_PHASES)

    @property
    def next_s(self) -> float:
        """Seconds (p90) of a run there that finds the machine set up by another."""
        return max(0.0, self.estimate.seconds_p90 - self.set_up_s)

    def as_json(self) -> dict[str, Any]:
        """Flat, as `plan --json` lists it."""
        guess = self.estimate.model_dump(mode="json")
        return {
            **self.offer.model_dump(mode="json"),
            "fits": self.fits,
            "why": self.why,
            "hours_p50": round(self.estimate.seconds_p50 / 3600, 4),
            "hours_p90": round(self.estimate.seconds_p90 / 3600, 4),
            "usd_p50": str(self.usd_p50),
            "usd_p90": str(self.usd_p90),
            "ceiling_usd": str(self.ceiling.usd),
            "deadline_h": self.ceiling.deadline_h,
            "released_by": list(self.released_by),
            "estimate_source": self.estimate.source,
            "needs_gb": self.estimate.needs_gb,
            "estimate": guess,
        }


class Allowed(_Value):
    """What an approval covers beside its ceiling: inside it, a new price needs no new YES."""

    providers: tuple[str, ...]
    max_usd_per_hour: Usd
    regions: tuple[str, ...] = ()  # empty: any
    trust: tuple[Trust, ...]
    sensitivity: Sensitivity
    budget: str = ""  # under whose caps
    instead_usd_per_hour: Usd = ZERO  # of another machine, where this one is not to be had

    def may_hold(self, offer: Offer) -> bool:
        """Whether the data may go there at all: phi never to a stranger's machine, whoever trusts its provider."""
        return not (self.sensitivity == "phi" and offer.trust == "marketplace")

    def covers_instead(self, offer: Offer) -> bool:
        """Whether this offer may be rented where the chosen one is not to be had, inside the same amount."""
        return (
            self.may_hold(offer)
            and offer.provider in self.providers
            and offer.trust in self.trust
            and offer.usd_per_hour <= max(self.instead_usd_per_hour, self.max_usd_per_hour)
            and (not self.regions or offer.region in self.regions)
        )

    def covers(self, offer: Offer) -> bool:
        """Whether this offer is inside what was approved."""
        return (
            self.may_hold(offer)
            and offer.provider in self.providers
            and offer.trust in self.trust
            and offer.usd_per_hour <= self.max_usd_per_hour
            and (not self.regions or offer.region in self.regions)
        )


class LeftOut(_Value):
    """Offers that the plan does not list one by one: how many, why, and the cheapest of them for an example."""

    count: int
    why: str
    example: str


class Plan(_Value):
    """What will be done, where, for at most how much, by when. `digest` covers all of it."""

    job_path: str
    recipe: str
    asked: Asked  # the settings as the job gives them, defaults written out, auto still auto
    data: dict[str, Any]
    gate: dict[str, Any] | None
    candidates: tuple[Candidate, ...]  # the best first; then those that do not fit
    chosen: int
    cheapest: int | None  # to rent, among those that fit
    fastest: int | None
    local: int | None
    left_out: tuple[LeftOut, ...] = ()
    considered: int
    sources: tuple[dict[str, Any], ...] = ()  # who was asked for prices, when, and who did not answer
    allowed: Allowed
    worst_case_usd: Usd
    worst_case: str
    idle_night_usd: Usd
    budget: str
    caps: dict[str, Any]  # of that budget, when the plan was made: launcher.ledger.Caps, amounts as text
    rules: dict[str, Any]  # and its rules of what may go where
    remaining_usd: dict[str, Usd]  # what the budget has left, by cap
    on_overrun: str
    nodes: int = 1

    @property
    def choice(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen]

    @property
    def ceiling_usd(self) -> Usd:
        """The most this run may cost, all attempts included."""
        return self.choice.ceiling.usd

    @property
    def deadline_h(self) -> float:
        """Hours from create to the end."""
        return self.choice.ceiling.deadline_h

    @property
    def is_free(self) -> bool:
        """Whether nothing can be charged."""
        return self.ceiling_usd == ZERO

    @property
    def spec(self) -> dict[str, Any]:
        """The settings that the chosen machine gets: what was auto is what the estimate chose for it."""
        return self.choice.estimate.resolved(self.asked)

    def on(self, candidate: Candidate) -> Plan:
        """The same on the machine that was had in the end, one of its candidates."""
        chosen = next(i for i, each in enumerate(self.candidates) if each is candidate)
        return self.model_copy(update={"chosen": chosen})

    @property
    def run_key(self) -> str:
        """The same for the same recipe, settings and data: one live run at a time has it."""
        return _digest({"recipe": self.recipe, "spec": self.asked, "data": self.data, "gate": self.gate})

    @property
    def digest(self) -> str:
        """SHA-256 over every field (prices' timestamps included)."""
        return _digest(self.model_dump(mode="json"))

    def as_json(self) -> dict[str, Any]:
        """What `launcher plan --json` prints."""
        named = {"cheapest": self.cheapest, "fastest": self.fastest, "local": self.local}
        return {
            "digest": self.digest,
            "chosen": self.choice.as_json(),
            "choices": {
                name: None if index is None else self.candidates[index].as_json() for name, index in named.items()
            },
            "candidates": [candidate.as_json() for candidate in self.candidates],
            "left_out": [item.model_dump(mode="json") for item in self.left_out],
            "considered": self.considered,
            "sources": list(self.sources),
            "ceiling_usd": str(self.ceiling_usd),
            "ceiling": self.choice.ceiling.model_dump(mode="json"),
            "deadline_h": self.deadline_h,
            "worst_case_usd": str(self.worst_case_usd),
            "worst_case": self.worst_case,
            "idle_night_usd": str(self.idle_night_usd),
            "released_by": list(self.choice.released_by),
            "allowed": self.allowed.model_dump(mode="json"),
            "budget": {
                "name": self.budget,
                "remaining_usd": {name: str(amount) for name, amount in self.remaining_usd.items()},
                "caps": self.caps,
            },
            "spec": self.spec,
            "data": self.data,
        }


def plan_of(run: str, held: dict[str, Any]) -> Plan:
    """A run's plan as the ledger holds it; raises StateError for one that another version of the launcher made."""
    try:
        return Plan.model_validate(held)
    except ValidationError:
        raise StateError(
            f"run {run} was planned by another version of this launcher: it cannot go on here.",
            fix=f"Release what it holds with: launcher stop {run}",
        ) from None


def settings(job: Job) -> dict[str, Any]:
    """The recipe's settings without the data fields: the user's own and every default, written out."""
    held = job.spec.model_dump(mode="json")
    return {name: value for name, value in held.items() if name not in recipe_module(job.recipe).DATA_FIELDS}


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
