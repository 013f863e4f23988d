"""Runs the jobs of an approved batch: as many at once as money and concurrency allow, until none is left that fits.

All it knows is in the ledger: killed at any point and started again, it finds its runs by their place in the batch,
sees to those whose runner died, and goes on with the rest. A job whose reservation was refused has a run that ended
so, before anything was created; such runs are no attempt, and the job is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from launcher.approval import Approval
from launcher.batch.file import Batch, Item, has_data_of
from launcher.batch.money import Deferral, Standing, deferral_of, standing
from launcher.batch.sharing import Sharing
from launcher.batch.summary import ended_in_words, some
from launcher.batch.terms import Covered, meet, met_runs
from launcher.budgets import FILE_NAME as BUDGETS
from launcher.clock import Clock
from launcher.errors import BadInputError, ExitCode, LedgerError, RefusedError, StateError
from launcher.home import Home
from launcher.ledger import Batch as Approved
from launcher.ledger import Caps, Ledger, Run, RunState
from launcher.money import ZERO, Usd
from launcher.plan import Plan, Wishes, plan_of
from launcher.reaper import reap_quietly
from launcher.runner.control import ask_to_stop, is_running
from launcher.workflow import Follower, Planned, begin, is_finished, plan_job, start

POLL_S = 0.5
REAP_S = 60.0
PRICES_S = 300.0  # how often a job is tried again for which nothing is to be had at an approved price
MOST_DEATHS = 3  # of one run's runner, before it is left to `launcher resume`
BUSY = "this machine is busy with another job of the batch"
Ending = Literal["over", "waiting", "stopped", "left"]


@dataclass(frozen=True)
class Terms:
    """An approved batch: its amount, and what the YES covers."""

    batch: Batch
    approved: Approved
    caps: Caps
    covered: Covered


@dataclass
class Standstill:
    """A job that does not run: since what the money looked like so, and when to look again."""

    deferral: Deferral
    seen: object
    again: float  # monotonic seconds


@dataclass
class Seen:
    """What this process has told of, and how often it saw a runner die."""

    ended: set[str] = field(default_factory=set)
    deaths: dict[str, int] = field(default_factory=dict)


class Scheduler:
    """One batch under its approval. `say` tells a person one thing that happened."""

    def __init__(self, terms: Terms, home: Home, ledger: Ledger, clock: Clock, wishes: Wishes,
                 say: Callable[[str], None]) -> None:  # fmt: skip
        self._batch, self._approved, self._caps = terms.batch, terms.approved, terms.caps
        self._covered, self.refused = terms.covered, dict(terms.covered.refused)
        self._home, self._ledger, self._clock, self._wishes, self._say = home, ledger, clock, wishes, say
        self.standstills: dict[int, Standstill] = {}
        self._seen = Seen()
        self._quiet_since = clock.now()
        self._untold: list[tuple[Item, Deferral]] = []
        self._reap_at = clock.monotonic()

    def go_on(self, asked: Callable[[str], str | None]) -> Ending:
        """Can leave runs under way, each with a runner of its own. Start what fits until nothing is left.

        `asked` is told where the batch stands at every turn; it answers None, `leave`, `collect` or `now`.
        """
        self._seen.ended = {run.run for run in self.runs().values() if is_finished(run)}
        stopping = False
        while True:
            runs = self.runs()
            queued = [run for run in runs.values() if self._waits_for_machine(run)]
            live = [run for run in runs.values() if run not in queued and self._tend(run)]
            wish = asked(self._line(live, queued, runs))
            if wish == "leave":
                return "left"
            if wish is not None:
                stopping = True
                for run in filter(self._is_ours, live):
                    ask_to_stop(self._home.run_dir(run.run), "now" if wish == "now" else "collect")
            waiting = self._waiting(runs)
            if not stopping and self._try_one(waiting, live):
                continue
            if stopping and not any(map(self._is_ours, live)):
                return "stopped"
            if live or queued:  # those without a live leader are free at the next look
                self._quiet_since = self._clock.now()
            elif not waiting:
                return "over"
            elif self._freed():
                continue
            elif not self._worth_waiting(waiting):
                return "waiting"
            self._clock.sleep(POLL_S)

    def runs(self) -> dict[int, Run]:
        """The run of each job that has one, also one that was started outside this batch and met here."""
        found = {
            run.item: run
            for run in self._ledger.batch_runs(self._approved.batch)
            if run.item is not None and not self._never_began(run)
        }
        for item, met in met_runs(self._ledger, self._approved.batch).items():
            found.setdefault(item, self._ledger.run(met))
        return found

    def _never_began(self, run: Run) -> bool:
        """Whether a run ended before anything was created: refused by a budget, or freed since its launcher died."""
        if run.state is RunState.CANCELLED:  # a runner that was told to stop leaves a receipt
            freed = run.outcome is not None and "receipt" not in run.outcome
            return freed and not self._ledger.leases(run.run)
        return run.state is RunState.REFUSED and run.exit_code == int(ExitCode.REFUSED)

    def standing(self) -> Standing:
        """How the amount of the batch stands."""
        return standing(self._ledger, self._approved.batch, self._approved.amount_usd)

    def _is_ours(self, run: Run) -> bool:
        """Not one that was launched by itself: that is not the batch's to stop."""
        return run.batch == self._approved.batch

    # -- runs that there are ------------------------------------------------------------------------------

    def _waits_for_machine(self, run: Run) -> bool:
        """Whether a run is to have another one's machine; it is no run any more where that one ended without it."""
        leader = self._ledger.waits_for(run) if self._is_ours(run) else None
        if leader is None or is_running(self._home.run_dir(run.run)):
            return False
        if leader.over:
            self._ledger.abandon(run.run, f"the machine of run {leader.run} was not to be had: tried on its own")
        return True

    def _tend(self, run: Run) -> bool:
        """Whether a run still holds its place; a runner that died is started again."""
        if is_running(self._home.run_dir(run.run)):
            return True
        run = self._ledger.run(run.run)  # it may have ended between the two questions
        here = self._ledger.is_ours(run)
        if not (run.over or here):
            return True  # another machine's runner cannot be asked from here: its run counts until it is over
        if is_finished(run) or not here:
            if run.run not in self._seen.ended:
                self._seen.ended.add(run.run)
                self._say(f"{self._name(run)}: {ended_in_words(run)}")
            return False
        deaths = self._seen.deaths.get(run.run, 0)
        if deaths >= MOST_DEATHS:
            return False
        self._seen.deaths[run.run] = deaths + 1
        try:
            if run.state is RunState.PLANNED and self._is_ours(run):
                self._approve(run)
            begin(self._home, self._ledger, run, self._clock)
        except RefusedError:  # its place was gone by the time it was taken up: the job is tried again
            return False
        except LedgerError:
            raise
        except StateError as error:
            self._say(f"{self._name(run)}: {error}")
            return False
        return True

    def _approve(self, run: Run) -> None:
        """Killed between the run and its approval: the batch's own approval holds for it."""
        approval = self._approval(run.item or 0)
        if approval is not None:
            allowed = approval.allowed.model_dump(mode="json")
            self._ledger.approve(run.run, approval.how, approval.ceiling_usd, allowed, approval.digest)

    def _name(self, run: Run) -> str:
        item = next((item for item, each in self.runs().items() if each.run == run.run), None)
        return f"{self._batch.items[item].name} (run {run.run})" if item is not None else f"run {run.run}"

    # -- jobs that have none ------------------------------------------------------------------------------

    def _waiting(self, runs: dict[int, Run]) -> list[Item]:
        return [
            item for item in self._batch.items
            if item.index not in runs and item.index not in self.refused and item.same_as is None
        ]  # fmt: skip

    def _try_one(self, waiting: list[Item], live: list[Run]) -> bool:
        """Try the first job whose turn it is; False when there is none, or no room for one more run."""
        if len(live) >= (self._batch.file.concurrency or self._caps.concurrent_runs):
            return False
        seen = (self._money(), [run.run for run in live])
        for item in waiting:
            still = self.standstills.get(item.index)
            if still is None or seen != still.seen or self._clock.monotonic() >= still.again:
                deferral = self._try(item, live)
                if deferral is not None and not deferral.never:
                    self._defer(item, deferral, seen)
                return True
        self._tell_who_waits()
        return False

    def _try(self, item: Item, live: list[Run]) -> Deferral | None:
        """Can leave something billing, under a runner of its own: start a job, or say why not now."""
        left = self.standing().left if self._approved.amount_usd > ZERO else None
        try:
            if not has_data_of(item):
                raise BadInputError("its data changed since the batch was approved: a new batch can take it.")
            planned = self._plan(item, left)
            approval = self._approval(item.index)
            if approval is None or not approval.covers(planned.plan):
                return Deferral(_outside(planned, approval))
            planned, then = self._shared(item, planned, left)
            why_not = self._no_room(planned.plan, live)
            if why_not is not None:
                return why_not
            if item.index in self.runs():  # another machine's launcher, on the same ledger, was faster
                return None
            run, new = start(
                planned, self._home, self._ledger, self._clock, approval,
                batch=self._approved.batch, item=item.index, then=then,
            )  # fmt: skip
        except RefusedError as error:
            deferral = self._what_of_batch(item, error, live) or deferral_of(error, self._ledger, self._caps)
            if deferral.never:
                self._refuse(item, deferral.why)
            return deferral
        except BadInputError as error:  # its data went bad since the batch was planned
            if error.file is not None and Path(error.file).name == BUDGETS:  # somebody is at it just now
                return Deferral(str(error))
            self._refuse(item, str(error))
            return Deferral(str(error), never=True)
        self.standstills.pop(item.index, None)
        if not new and run.batch != self._approved.batch:
            meet(self._ledger, self._approved.batch, item.index, run.run)
            self._say(f"{item.name}: runs already as {run.run}, launched by itself; its cost is not this batch's")
        else:
            offer = planned.plan.choice.offer
            where = "this machine" if offer.provider == "local" else f"{offer.provider} {offer.gpu}"
            self._say(f"{item.name}: run {run.run} started on {where}, at most ${planned.plan.ceiling_usd}")
            if then:
                names = some([self._batch.items[each.item].name for each in then])
                self._say(f"{names}: to follow on the same machine, out of the same ${planned.plan.ceiling_usd}")
        return None

    def _shared(self, item: Item, planned: Planned, left: Usd | None) -> tuple[Planned, list[Follower]]:
        """The plan of a job that shares its machine, with the jobs to follow there; else the plan as it is, and none.

        Jobs share one only where they were approved so, the offer is still to be had, and all of it fits the money.
        """
        pack = next((each for each in self._covered.packed if item.index in each.items), None)
        if pack is None or planned.plan.is_free:
            return planned, []
        waiting = self._waiting(self.runs())
        others = [each for each in waiting if each.index in pack.items and each is not item]
        sharing = Sharing(self._home, self._clock, self._wishes, self._approval)
        shared = sharing.share(item, planned, others, pack.offer, left)
        return (planned, []) if shared is None or self._no_room(shared[0].plan, []) is not None else shared

    def _no_room(self, plan: Plan, live: list[Run]) -> Deferral | None:
        """Why a plan that fits the money has to wait all the same."""
        if plan.is_free:
            return Deferral(BUSY) if sum(map(_is_free, live)) >= (self._batch.file.concurrency or 1) else None
        if plan.choice.offer.stale:
            return Deferral(f"{plan.choice.offer.provider} does not tell its prices of now")
        holders, most = self._ledger.holders(self._caps.budget), self._caps.concurrent_runs
        if len(holders) >= most:
            words = f"budget {self._caps.budget} allows {most} at a time, and {len(holders)} hold money"
            return Deferral(words, settles=True)
        return None

    def _plan(self, item: Item, left: Usd | None) -> Planned:
        """The job's plan inside its approval, at prices asked for just now where it costs money."""
        allowed = self._covered.allowed.get(item.index)
        wishes = replace(self._wishes, within=allowed)
        planned = plan_job(item.job, self._home, self._clock, wishes, most_usd=left)
        if planned.plan.is_free:
            return planned
        return plan_job(item.job, self._home, self._clock, wishes, most_usd=left, fresh=True)

    def _approval(self, index: int) -> Approval | None:
        """The batch's approval as it holds for one job: its amount, and whom this job may be rented from."""
        allowed = self._covered.allowed.get(index)
        if allowed is None:
            return None
        how, amount = self._approved.how, self._approved.amount_usd
        return Approval("typed" if how == "typed" else "preapproved" if how == "preapproved" else "free", amount,
                        allowed, self._approved.digest)  # fmt: skip

    def _what_of_batch(self, item: Item, error: RefusedError, live: list[Run]) -> Deferral | None:
        """Whether it is the batch's own money that is short, which no other day brings back."""
        stands = self.standing()
        if error.facts.get("when") != "now" or self._approved.amount_usd == ZERO or error.facts.get("cap"):
            return None
        try:  # what it would take if the batch had all its money still
            planned = self._plan(item, None)
        except RefusedError:
            return None
        approval, alone = self._approval(item.index), planned.plan.ceiling_usd
        if approval is None or not approval.allowed.covers(planned.plan.choice.offer):
            return Deferral(_outside(planned, approval))
        if stands.charged + alone > stands.amount:
            words = f"${stands.charged} of its ${stands.amount} is charged, and it may cost ${alone}"
            return Deferral(f"the batch's money does not reach: {words}", never=True)
        if alone > stands.left:
            return Deferral(f"may cost ${alone}, ${stands.left} of the batch is left now", settles=True)
        return None

    def _refuse(self, item: Item, why: str) -> None:
        self.refused[item.index] = why
        self.standstills.pop(item.index, None)
        self._untold.append((item, Deferral(why, never=True)))

    def _defer(self, item: Item, deferral: Deferral, seen: object) -> None:
        told = self.standstills.get(item.index)
        if deferral.why != BUSY and (told is None or _kind(told.deferral) != _kind(deferral)):
            self._untold.append((item, deferral))
        self.standstills[item.index] = Standstill(deferral, seen, self._clock.monotonic() + PRICES_S)

    def _tell_who_waits(self) -> None:
        """One line for all jobs that began to wait for the same thing, or were refused for the same reason."""
        kinds: dict[object, list[tuple[Item, Deferral]]] = {}
        for item, deferral in self._untold:
            if deferral.never or item.index in self.standstills:  # it may have started meanwhile
                kinds.setdefault(_kind(deferral), []).append((item, deferral))
        for alike in kinds.values():
            names, deferral = list(dict.fromkeys(item.name for item, _ in alike)), alike[-1][1]
            verb = "refused" if deferral.never else "waits" if len(names) == 1 else "wait"
            self._say(f"{some(names)}: {verb}{'' if deferral.never else self._until(deferral)}: {deferral.why}")
        self._untold = []

    def _worth_waiting(self, waiting: list[Item]) -> bool:
        """Whether a job that is waiting may still start before the batch's patience ends, with nothing running."""
        ends = self._quiet_since + timedelta(hours=self._batch.file.wait_hours)
        if self._clock.now() >= ends:
            return False
        held = [self.standstills[item.index].deferral for item in waiting if item.index in self.standstills]
        return len(held) < len(waiting) or any(each.until is None or each.until <= ends for each in held)

    def _freed(self) -> bool:
        """Whether a launcher that died held money, which is free now; asked now and then while nothing runs.

        A run whose machine could not be released holds money, too: it is tried again.
        """
        if self._clock.monotonic() < self._reap_at:
            return False
        self._reap_at = self._clock.monotonic() + REAP_S
        self._seen.deaths.clear()
        return bool(reap_quietly(self._home, self._ledger, self._clock))

    def _money(self) -> object:
        """What a job that was deferred for money waits to see changed."""
        left = self._ledger.remaining(self._caps)
        return (self.standing(), tuple(left.values()), tuple(self._ledger.holders(self._caps.budget)))

    def _line(self, live: list[Run], queued: list[Run], runs: dict[int, Run]) -> str:
        stands, done = self.standing(), len(runs) - len(live) - len(queued)
        waits = len(self._waiting(runs)) + len(queued)
        money = f"${stands.charged} charged + ${stands.reserved} reserved of ${stands.amount}"
        return f"{len(live)} running · {done} ended · {waits} waiting · {money}"

    def _until(self, deferral: Deferral) -> str:
        if deferral.until is not None:
            local = deferral.until.astimezone(self._caps.zone)
            return f" until {local:%Y-%m-%d %H:%M} {self._caps.time_zone}"
        return " until a run settles" if deferral.settles else f" and is tried every {PRICES_S / 60:.0f} min"


def _is_free(run: Run) -> bool:
    return plan_of(run.run, run.plan).is_free


def _kind(deferral: Deferral) -> object:
    return deferral.never and deferral.why, deferral.until, deferral.settles


def _outside(planned: Planned, approval: Approval | None) -> str:
    offer = planned.plan.choice.offer
    words = f"{offer.provider} {offer.gpu} at ${offer.usd_per_hour}/h, at most ${planned.plan.ceiling_usd}"
    most = f" (at most ${approval.allowed.max_usd_per_hour}/h)" if approval else ""
    return f"only {words} is to be had, which is outside what was approved{most}"
