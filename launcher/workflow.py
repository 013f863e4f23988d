"""From a job file to a running run: check, split, plan, approve, reserve, start; for `plan`, `run` and `tune`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.budgets import Budget, choose_budget, find_budgets, load_budgets
from launcher.clock import Clock
from launcher.data import check_manifest
from launcher.environment import recipe_python
from launcher.errors import BadInputError, RefusedError
from launcher.home import Home
from launcher.job import Job
from launcher.ledger import Caps, Ledger, Run, RunState
from launcher.money import ZERO
from launcher.offers.offer import Offer
from launcher.plan import Plan, make_plan
from launcher.prepare import Prepared, prepare
from launcher.runner.control import ask_to_stop, is_running, spawn
from recipes.manifest import ManifestError


@dataclass(frozen=True)
class Planned:
    """A plan with the budget it was made under and the data it stands on."""

    plan: Plan
    budget: Budget
    prepared: Prepared
    job: Job


def plan_job(job: Job, home: Home, clock: Clock) -> Planned:
    """Check the job's manifests, split, and choose where to run. Spends nothing, rents nothing."""
    budgets_file = find_budgets(job.path.parent, Path.cwd(), home.root)
    name, budget = choose_budget(load_budgets(budgets_file), job.budget, budgets_file)
    for path in (job.data.manifest, job.data.validation, job.data.general):
        if path is not None:
            refuse_faulty(path)
    priority = job.gate.priority if job.gate else ()
    fresh = not home.root.exists()
    try:
        prepared = prepare(job.data, home.ensure(), priority)
    except (BadInputError, ManifestError):
        if fresh:  # a wrong job leaves nothing behind
            with suppress(OSError):  # another launcher's by now
                home.root.rmdir()
        raise
    prepared = replace(prepared, warnings=(*prepared.warnings, *_losses(job)))
    return Planned(make_plan(job, prepared, _offers(job, budget, clock), name, budget), budget, prepared, job)


def refuse_faulty(manifest: Path) -> None:
    """Raise BadInputError with the first fault of a manifest, and how to see the others."""
    errors = check_manifest(manifest).errors
    if errors:
        first, more = errors[0], len(errors) - 1
        rest = f" ({more:,} more: launcher manifest check {manifest})" if more else ""
        raise BadInputError(
            first.problem, fix=f"{first.fix}{rest}", file=manifest, line=first.line, key=first.field or ""
        )


def _losses(job: Job) -> list[str]:
    """What training would lose of the manifest: clips that are too long, texts the base cannot write."""
    longest = getattr(job.spec, "max_duration_s", None)
    base = str(getattr(job.spec, "base", ""))
    tokenizer = Path(base) if base.endswith(".nemo") else None
    try:
        checked = check_manifest(job.data.manifest, max_duration_s=longest, tokenizer=tokenizer)
    except BadInputError:  # a base without a tokenizer of its own, such as one of letters
        checked = check_manifest(job.data.manifest, max_duration_s=longest)
    said = []
    if checked.dropped_hours:
        said.append(f"max_duration_s {longest:g} leaves out {checked.dropped_hours:.2f} h of training recordings")
    if checked.errors:  # without a tokenizer there were none
        said.append(
            f"{len(checked.errors):,} texts have signs that the base's tokenizer cannot write: see "
            f"launcher manifest check {job.data.manifest} --tokenizer {base}"
        )
    return said


def start(planned: Planned, home: Home, ledger: Ledger, clock: Clock) -> tuple[Run, bool]:
    """Approve, reserve and start the runner; (run, whether it is new). A double launch finds the first run.

    Raises RefusedError when the plan costs money: only a price of 0 needs no YES.
    """
    plan = planned.plan
    if plan.ceiling_usd > ZERO:
        raise RefusedError("this plan costs money and nobody has approved it", fix="Type YES at a terminal.")
    recipe_python()  # what would keep every step from starting is said before there is a run
    run, new = ledger.create_run(plan.run_key, plan.model_dump(mode="json"), plan.digest)
    try:
        begin(home, ledger, run, clock)
    except KeyboardInterrupt:  # nobody watches it yet: nobody else could stop it
        if new:
            ask_to_stop(home.run_dir(run.run), "now")
            begin(home, ledger, run, clock)
        raise
    return ledger.run(run.run), new


def begin(home: Home, ledger: Ledger, run: Run, clock: Clock) -> None:
    """See to it that a runner lives for a run which is not over, or over but not released or not told."""
    if is_running(home.run_dir(run.run)):
        return
    if not run.over:
        advance(ledger, run)
    spawn(home, run.run, clock)


def is_finished(run: Run) -> bool:
    """Whether a runner has nothing left to do: the run is over, what came of it is told, all is released."""
    return run.over and run.outcome is not None and bool(run.outcome.get("released"))


def finish(home: Home, ledger: Ledger, run: Run, clock: Clock) -> Run:
    """Settle and tell of a run that is over, where its runner was killed before it could; returns the run."""
    if run.over and run.outcome is None:
        begin(home, ledger, run, clock)
        while is_running(home.run_dir(run.run)):
            clock.sleep(0.05)
    return ledger.run(run.run)


def advance(ledger: Ledger, run: Run) -> None:
    """Take a run that was planned (by this process, by another shell's, or by one that was killed) to reserved."""
    plan = Plan.model_validate(run.plan)
    allowed = {"providers": [plan.choice.offer.provider], "max_usd_per_hour": str(plan.choice.offer.usd_per_hour)}
    ledger.approve(run.run, "free", plan.ceiling_usd, allowed, plan.digest)
    ledger.advance_run(run.run, RunState.PLANNED, RunState.APPROVED)
    # Only what is free is started: caps that allow nothing else, wherever the budgets file is by now.
    ledger.reserve(run.run, Caps(plan.budget, ZERO, ZERO, ZERO, 0, "UTC"), plan.ceiling_usd)
    ledger.advance_run(run.run, RunState.APPROVED, RunState.RESERVED)


def _offers(job: Job, budget: Budget, clock: Clock) -> list[tuple[Offer, tuple[str, ...]]]:
    allowed = set(job.resources.providers) & set(budget.providers)
    if "local" not in allowed:
        raise RefusedError(
            "no provider is left: this launcher rents on this machine only, and it is not allowed here.",
            file=job.path, key="resources.providers", value=job.resources.providers, fix="Add local.",
        )  # fmt: skip
    from launcher.offers.local import local_offer

    return [(local_offer(clock), ("nothing to release: this machine costs nothing",))]
