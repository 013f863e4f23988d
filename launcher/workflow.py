"""From a job file to a running run: check, split, plan, approve, reserve, start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.approval import NOTHING, Approval, Consent, approve, free
from launcher.budgets import Budget, choose_budget, find_budgets, load_budgets
from launcher.clock import Clock
from launcher.data import check_manifest
from launcher.environment import recipe_python
from launcher.errors import BadInputError, LauncherError, LedgerError, PendingError, RefusedError, StateError
from launcher.estimate import Estimator
from launcher.home import Home
from launcher.job import Job, load_job
from launcher.live_gate import refuse_without_layers
from launcher.money import ZERO, Usd
from launcher.offers import Market, ask_market
from launcher.plan import Plan, Wishes, make_plan, plan_of
from launcher.plan.choose import Purse
from launcher.plan.nodes import refuse_nodes
from launcher.prepare import Prepared, prepare
from launcher.providers.traits import allowed_providers
from launcher.runner.control import ask_to_stop, is_running, spawn, stop_asked
from recipes.manifest import ManifestError
from recipes.pseudo_label.spec import PseudoLabelSpec

if TYPE_CHECKING:  # SQLAlchemy costs a fifth of a second: a plan before the first run does without
    from launcher.cli.output import Output
    from launcher.ledger import Caps, Ledger, Run, Throughput

CAPS = ("per_run_usd", "per_day_usd", "per_month_usd")


@dataclass(frozen=True)
class Planned:
    """A plan with the budget it was made under, the data it stands on and what was asked beside the job."""

    plan: Plan
    budget: Budget
    prepared: Prepared
    job: Job
    caps: Caps
    wishes: Wishes
    market: Market


def plan_job(job: Job, home: Home, clock: Clock, wishes: Wishes | None = None, *, fresh: bool = False,
             most_usd: Usd | None = None, unspent: bool = False,
             market: Market | None = None) -> Planned:  # fmt: skip
    """Check the job's manifests, split, ask for prices and choose where to run. Spends nothing, rents nothing.

    `fresh` asks the providers again instead of taking prices of minutes ago; `most_usd` is what a batch has left;
    `unspent` plans under the budget's caps as if nothing had been spent yet, for a job whose turn comes later;
    `market` is what another job of the same batch was told just now.
    """
    from launcher.ledger.caps import Caps

    wishes = wishes or Wishes()
    budgets_file = find_budgets(job.path.parent, Path.cwd(), home.root)
    budgets = load_budgets(budgets_file)
    name, budget = choose_budget(budgets, job.budget, budgets_file)
    caps = Caps.of(name, budget, budgets.time_zone)
    labels = isinstance(job.spec, PseudoLabelSpec)
    for path in () if labels else (job.data.manifest, job.data.validation, job.data.general):
        if path is not None:
            refuse_faulty(path)
    priority = job.gate.priority if job.gate else ()
    fresh_home = not home.root.exists()
    try:
        prepared = _prepared(job, home.ensure(), priority)
    except (BadInputError, ManifestError):
        if fresh_home:  # a wrong job leaves nothing behind
            with suppress(OSError):  # another launcher's by now
                home.root.rmdir()
        raise
    prepared = replace(prepared, warnings=(*prepared.warnings, *_trusted(job), *([] if labels else _losses(job))))
    remaining, measured = _remembered(home, clock, caps)
    if unspent:
        remaining = {cap: getattr(caps, cap) for cap in CAPS}
    if most_usd is not None:
        remaining["batch_usd"] = most_usd
    market = market or _market(job, budget, home, clock, wishes, fresh=fresh)
    purse = Purse(caps, budget, remaining)
    plan = make_plan(job, prepared, market, purse, Estimator(job, prepared, measured), wishes)
    return Planned(plan, budget, prepared, job, caps, wishes, market)


def _prepared(job: Job, home: Home, priority: tuple[str, ...]) -> Prepared:
    """The job's data, made ready for what its recipe does with them."""
    if isinstance(job.spec, PseudoLabelSpec):
        from launcher.unlabelled import prepare_unlabelled  # it reads audio: numpy costs a plan a tenth of a second

        return prepare_unlabelled(job.data, job.spec, home)
    return prepare(job.data, home, priority)


def _remembered(home: Home, clock: Clock, caps: Caps) -> tuple[dict[str, Usd], list[Throughput]]:
    """What the ledger knows: what is left of the budget (USD, by cap), and how fast machines were."""
    if not home.has_ledger:
        return {cap: getattr(caps, cap) for cap in CAPS}, []
    from launcher.ledger import Ledger

    ledger = Ledger.open(home, clock)
    return ledger.remaining(caps), ledger.throughputs()


def _market(job: Job, budget: Budget, home: Home, clock: Clock, wishes: Wishes, *, fresh: bool) -> Market:
    """The offers of every provider that job and budget name."""
    names = allowed_providers(job.resources.providers, budget.providers)
    if not names:
        raise RefusedError(
            f"no provider is left: the budget allows only {', '.join(budget.providers)}.",
            file=job.path, key="resources.providers", value=job.resources.providers, fix="Name one that both allow.",
        )  # fmt: skip
    if wishes.offers is not None:  # read anyway: the plan then says why the others were no choice
        return ask_market(home, clock, file=wishes.offers, fresh=fresh)
    if wishes.provider is not None:
        names &= {wishes.provider}
    return ask_market(home, clock, providers=names, fresh=fresh)


def refuse_faulty(manifest: Path) -> None:
    """Raise BadInputError with the first fault of a manifest, and how to see the others."""
    errors = check_manifest(manifest).errors
    if errors:
        first, more = errors[0], len(errors) - 1
        rest = f" ({more:,} more: launcher manifest check {manifest})" if more else ""
        raise BadInputError(
            first.problem, fix=f"{first.fix}{rest}", file=manifest, line=first.line, key=first.field or ""
        )


def _trusted(job: Job) -> list[str]:
    """What is said where a base may run its maker's programs."""
    if getattr(job.spec, "trust_base", None) is None:
        return []
    base = Path(str(getattr(job.spec, "base", "") or getattr(job.spec, "model", ""))).name
    return [
        f"trust_base: loading {base} runs programs of whoever made it, on the machine that the job runs on: they can "
        "do there what you can, and read the job's data. Trust them with this computer, or let it run elsewhere"
    ]


def _losses(job: Job) -> list[str]:
    """What training would lose of the manifest: clips that are too long, texts the base cannot write."""
    longest = getattr(job.spec, "max_duration_s", None)
    base = str(getattr(job.spec, "base", ""))
    grows = job.recipe == "extend_vocabulary"  # what the base cannot write is what it is to learn
    tokenizer = Path(base) if base.endswith(".nemo") and not grows else None
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


def secure(planned: Planned, consent: Consent, home: Home, clock: Clock, out: Output,
           show: Callable[[Planned], None]) -> tuple[Planned, Approval]:  # fmt: skip
    """Get the YES, then ask for the price again: inside the approval it goes on, outside it takes a new YES.

    Returns the plan at the prices of now and the approval that covers it. Raises NotConfirmedError, or RefusedError
    when a price moved out of the approval and nobody is there to ask. Reserves nothing.
    """
    while True:
        plan = planned.plan
        if plan.is_free:
            return planned, free(plan)
        refuse_unrentable(plan, home, clock)
        approval = approve(plan, planned.budget, consent, out, shared_ledger=home.ledger_is_shared)
        wishes = replace(
            planned.wishes, keep=(plan.choice.offer.provider, plan.choice.offer.offer_id), within=approval.allowed,
            most_usd=approval.ceiling_usd,
        )  # fmt: skip
        now = plan_job(load_job(planned.job.path), home, clock, wishes, fresh=True)  # the files as they are now
        if now.plan.run_key != plan.run_key:
            raise BadInputError(
                f"the job or the data changed while the plan was being looked at. {NOTHING}",
                file=planned.job.path, fix="Plan it again.",
            )  # fmt: skip
        moved = describe_move(plan, now.plan)
        refuse_unrentable(now.plan, home, clock)
        if approval.covers(now.plan):
            if moved:
                out.say(f"{moved}: inside what was approved (${approval.ceiling_usd}).")
            return now, approval
        words = f"{moved or 'prices moved'}: outside what was approved (${approval.ceiling_usd}, at most " \
                f"${approval.allowed.max_usd_per_hour}/h)"  # fmt: skip
        if consent.given:
            raise RefusedError(f"{words}. {NOTHING}", fix="Plan again.")
        out.say(f"{words}. Nothing was created; here is the plan at the prices of now:", style="yellow")
        planned = replace(now, wishes=planned.wishes)
        show(planned)


def refuse_unrentable(plan: Plan, home: Home, clock: Clock) -> None:
    """Raise RefusedError before anybody is asked for a YES that could not be kept, or at a price that is no quote."""
    from launcher.providers.registry import can_rent, provider_named

    offer = plan.choice.offer
    if plan.is_free:
        return
    if offer.stale:
        raise RefusedError(
            f"the price of {offer.provider} {offer.gpu} is of {offer.as_of[:10] or 'an unknown day'}: nothing is "
            "rented at an old price. Nothing was created and nothing was reserved.",
            fix="Ask again (launcher offers --fresh), or write the file anew.",
        )  # fmt: skip
    if not can_rent(offer.provider, offer.via):
        through = " through SkyPilot" if offer.via == "skypilot" else ""
        raise RefusedError(
            f"this launcher cannot rent at {offer.provider}{through} yet; the plan is right, but nothing can be "
            "created.", key="provider", value=offer.provider, fix="Choose another: --provider local.",
        )  # fmt: skip
    provider = provider_named(offer.provider, home, clock, offer.via)
    if offer.nodes > 1:
        refuse_nodes(plan, provider)
    why = provider.unusable()
    if why is not None:
        raise RefusedError(f"nothing can be rented at {offer.provider} from here: {why} {NOTHING}")
    refuse_without_layers(offer)


def refuse_pending(ledger: Ledger, plan: Plan) -> None:
    """Raise PendingError while a machine at the plan's provider may still bill: one fault of theirs is enough."""
    provider = plan.choice.offer.provider
    stuck = next((lease for lease in ledger.unreleased() if lease.provider == provider), None)
    if stuck is not None and not plan.is_free:
        raise PendingError(
            f"{provider} has not confirmed the release of {stuck.label} (run {stuck.run}), which may still bill "
            f"${stuck.max_usd_per_hour}/h: nothing new is rented there. {NOTHING}", fix="Release it: launcher reap",
        )  # fmt: skip


def describe_move(before: Plan, now: Plan) -> str:
    """What changed between two plans of the same job, in words; empty when nothing of it matters."""
    old, new = before.choice.offer, now.choice.offer
    moved = []
    if (old.provider, old.offer_id) != (new.provider, new.offer_id):
        gone = f"{old.provider} {old.gpu} at ${old.usd_per_hour}/h is gone"
        moved.append(f"{gone}; {new.provider} {new.gpu} costs ${new.usd_per_hour}/h")
    elif old.usd_per_hour != new.usd_per_hour:
        moved.append(f"{new.provider} {new.gpu} costs ${new.usd_per_hour}/h now, not ${old.usd_per_hour}/h")
    for is_, was in (
        (f"{new.count} × {new.gpu}", f"{old.count} × {old.gpu}"), (f"in {new.region}", f"in {old.region}"),
        (f"a {new.trust} host", f"a {old.trust} host"),
    ):  # fmt: skip
        if is_ != was:
            moved.append(f"it is {is_} now, not {was}")
    for is_, was in ((now.budget, before.budget), (now.allowed.sensitivity, before.allowed.sensitivity)):
        if is_ != was:
            moved.append(f"{'budget' if is_ == now.budget else 'data'} {is_} now, not {was}")
    return "; ".join(moved)


@dataclass(frozen=True)
class Follower:
    """A job of a batch that is to have another one's machine: its plan there, its approval, its place."""

    plan: Plan
    approval: Approval
    item: int


def start(planned: Planned, home: Home, ledger: Ledger, clock: Clock, approval: Approval, *,
          batch: str | None = None, item: int | None = None,
          then: Sequence[Follower] = ()) -> tuple[Run, bool]:  # fmt: skip
    """Record the approval, reserve the ceiling, start the runner; (run, whether it is new).

    A double launch finds the first run. Raises RefusedError when the approval does not cover the plan, or a cap has
    no room any more: then the run is refused, and nothing stays reserved. `then`: runs that are planned with it and
    get its machine when it is done.
    """
    plan = planned.plan
    if not approval.covers(plan):
        raise RefusedError("this plan costs more than anybody has approved", fix="Type YES at a terminal.")
    refuse_pending(ledger, plan)
    recipe_python()  # what would keep every step from starting is said before there is a run
    run, new = _write_down(ledger, plan, approval, batch, item)
    if new and then:
        written = [_write_down(ledger, each.plan, each.approval, batch, each.item) for each in then]
        ledger.follow(run.run, [follower.run for follower, unknown in written if unknown])
    try:
        begin(home, ledger, run, clock)
    except KeyboardInterrupt:  # nobody watches it yet: nobody else could stop it
        if new:
            ask_to_stop(home.run_dir(run.run), "now")
            begin(home, ledger, run, clock)
        raise
    return ledger.run(run.run), new


def _write_down(ledger: Ledger, plan: Plan, approval: Approval, batch: str | None,
                item: int | None) -> tuple[Run, bool]:  # fmt: skip
    given = {
        "how": approval.how, "ceiling_usd": approval.ceiling_usd, "digest": approval.digest,
        "allowed": approval.allowed.model_dump(mode="json"),
    }  # fmt: skip
    held = plan.model_dump(mode="json")
    return ledger.create_run(plan.run_key, held, plan.digest, approval=given, batch=batch, item=item)


def begin(home: Home, ledger: Ledger, run: Run, clock: Clock) -> None:
    """See to it that a runner lives for a run which is not over, or over but not released or not told."""
    if is_running(home.run_dir(run.run)):
        return
    if not run.over:
        if stop_asked(home.run_dir(run.run)) is None:
            plan_of(run.run, run.plan)  # one that cannot go on is said here; to be released, it needs no plan
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
    """Take a run that was planned (by this process, by another shell's, or by one that was killed) to reserved.

    Raises RefusedError when nobody approved it or a cap has no room: the run then ends refused. Raises StateError
    where the clock is wrong: then it stays as it was.
    """
    from launcher.ledger import RunState

    if run.state not in (RunState.PLANNED, RunState.APPROVED):
        return
    plan = plan_of(run.run, run.plan)
    if not plan.is_free:
        ledger.refuse_clock_skew()  # deadlines, days and months stand on the clock
    try:
        if not plan.is_free and ledger.approval(run.run) is None:
            raise RefusedError("nobody has approved this run", fix="Launch it again, and type YES.")
        ledger.advance_run(run.run, RunState.PLANNED, RunState.APPROVED)
        ledger.reserve(run.run, caps_of(plan), plan.ceiling_usd, batch=run.batch)
    except RefusedError as error:
        ledger.move_run(run.run, RunState.REFUSED, reason=error.problem, exit_code=int(error.exit_code))
        ledger.set_outcome(run.run, refused_outcome(run, error))
        raise
    except StateError as error:
        now = None if isinstance(error, LedgerError) else ledger.run(run.run)
        if now is None or now.state is not RunState.REFUSED:
            raise
        raise RefusedError(f"{now.reason or error.problem}", fix="Run the job anew.") from None  # in another shell
    ledger.advance_run(run.run, RunState.APPROVED, RunState.RESERVED)


def caps_of(plan: Plan) -> Caps:
    """The caps that a plan was made under."""
    from launcher.ledger import Caps

    return Caps(**{**plan.caps, **{name: Usd(plan.caps[name]) for name in CAPS}})


def refused_outcome(run: Run, error: LauncherError) -> dict[str, object]:
    """What a run that never began answers: nothing charged, nothing to release."""
    return {
        "run": run.run, "state": "refused", "exit": int(error.exit_code), "reason": error.problem, "artifacts": [],
        "released": True, "usd": {"charged": str(ZERO), "reserved": str(ZERO)},
    }  # fmt: skip
