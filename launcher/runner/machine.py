"""The state machine of one run: lease, stage, execute step by step, collect, release, settle. Resumable anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher import baselines
from launcher.clock import Clock, iso
from launcher.errors import ExitCode, LedgerError
from launcher.estimate.measured import throughput_of
from launcher.failpoints import effect
from launcher.home import Home
from launcher.hosts.base import HostError, HostUnreachableError
from launcher.job import TRAINING_RECIPES
from launcher.ledger import LeaseState, Ledger, Run, RunState
from launcher.plan import plan_of
from launcher.providers.release import machine_of
from launcher.report.after_run import gate_of, write_receipt_alone, write_reports
from launcher.runner.boarding import Aboard, Boarding
from launcher.runner.ending import Ending, failed, in_words, say_all
from launcher.runner.handing import Handing
from launcher.runner.interrupts import Interrupts
from launcher.runner.keeping import forget_kept
from launcher.runner.merging_here import maker
from launcher.runner.mirror import Mirror
from launcher.runner.overrun import Overrun
from launcher.runner.performing import Performing
from launcher.runner.staging import bundle_of, send
from launcher.runner.steps import AFTER, BEFORE, FINETUNE, LABELS, TUNED, steps_of
from recipes.contract import write_json


class Runner:
    """Executes one run. Every effect is journalled, so that a new Runner goes on where a killed one was."""

    def __init__(self, home: Home, ledger: Ledger, run: Run, clock: Clock,
                 interrupts: Interrupts | None = None) -> None:  # fmt: skip
        self._home, self._ledger, self._clock = home, ledger, clock
        self._run_id = run.run
        self._plan = plan_of(run.run, run.plan)
        self._dir = home.run_dir(run.run)
        self._mirror = Mirror(self._dir)
        self._interrupts = interrupts or Interrupts(self._dir)
        self._boarding = Boarding(home, ledger, run.run, self._plan, self._mirror, self._interrupts, clock)

    def execute(self) -> ExitCode:
        """Can leave something billing only if this process is killed; resume then goes on. Returns the exit code."""
        run = self._ledger.run(self._run_id)
        if not (self._dir / "plan.json").exists():
            with effect("run.plan"):
                write_json(self._dir / "plan.json", run.plan)
        if run.state is RunState.RESERVED:
            self._move(RunState.RUNNING)
        if self._ledger.run(self._run_id).state is RunState.RUNNING:
            try:
                self._work()
                self._move(RunState.COLLECTED)
            except Ending as end:
                self._move(end.state, reason=end.reason, exit_code=int(end.code))
            except LedgerError:
                raise  # nothing can be told or released without it; all of it can once it is back
            except Exception as error:  # noqa: BLE001  nothing skips the release, not even a fault of ours
                say_all()
                self._move(RunState.FAILED, reason=in_words(error), exit_code=int(ExitCode.RECIPE_FAILED))
        released = self._hand_over() or self._release_all()
        if self._ledger.run(self._run_id).state is RunState.COLLECTED:
            made = self._ledger.step(self._run_id, FINETUNE) or self._ledger.step(self._run_id, LABELS)
            limit = (made or {}).get("limit")
            if self._plan.recipe in TRAINING_RECIPES and self._ledger.step(self._run_id, AFTER) is None:
                limit = limit or "stopped before the tuned model was measured"
            state, code = (RunState.STOPPED, ExitCode.STOPPED_AT_LIMIT) if limit else (RunState.SETTLED, ExitCode.OK)
            self._move(state, reason=limit, exit_code=int(code))
            forget_kept(self._dir)
        return self._settle(released)

    # -- the work -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Every step with its artefacts home, on one machine, or on the next where one is lost.

        Raises Ending for any other end.
        """
        self._interrupts.refuse_now()  # asked while no runner lived, perhaps
        if self._interrupts.asked and not self._boarding.live():
            words = "asked to stop before it began; there was nothing to keep yet"
            raise Ending(RunState.STOPPED, ExitCode.INTERRUPTED, words)
        bundle_of(self._plan, self._dir)  # before anything bills
        while True:
            aboard = self._boarding.aboard()
            try:
                self._work_aboard(aboard)
                return
            except (HostUnreachableError, HostError) as error:
                self._boarding.leave(aboard.lease, failed(in_words(error)))

    def _work_aboard(self, aboard: Aboard) -> None:
        self._mirror.aboard(aboard.lease.lease)
        aboard = self._staged(aboard)
        performing = Performing(
            aboard, self._ledger, self._run_id, self._dir, self._mirror, self._interrupts, self._clock,
            why_stop=lambda: self._why_stop(aboard),
            overrun=Overrun(aboard, self._plan, self._ledger, self._run_id, self._dir, self._mirror, self._clock),
            make=maker(aboard, self._plan, self._mirror, self._clock),
        )  # fmt: skip
        for step in steps_of(self._plan.on(aboard.candidate)):
            result = self._ledger.step(self._run_id, step.name)
            if result is None:
                why = self._why_stop(aboard)
                if why and aboard.host.status(step.name).state == "absent":
                    if step.name == AFTER:
                        break  # the model is home: it is kept, unmeasured
                    raise performing.nothing_kept(why, f"before {step.name}")
                if step.name == BEFORE and baselines.restore(self._home, self._plan, self._dir / BEFORE):
                    result = {"cached": True}
                    self._mirror.say("note", message="baseline: measured before, taken from the cache")
                else:
                    if step.name == AFTER:
                        self._bring_model(aboard)
                    result = performing.perform(step)
                self._ledger.set_step(self._run_id, step.name, "done", result)
                if step.name == FINETUNE:
                    self._remember_speed(aboard)
            if step.name == BEFORE:
                if not result.get("cached"):
                    self._keep_baseline()
                self._gate(cached=bool(result.get("cached")))
        if self._ledger.leases(self._run_id)[-1].state is LeaseState.BUSY:
            self._ledger.move_lease(aboard.lease.lease, LeaseState.DRAINED)

    def _staged(self, aboard: Aboard) -> Aboard:
        """Send the bundle; a machine that has it already is not sent it again."""
        lease = aboard.lease
        if lease.state is LeaseState.ARMED:
            there = bundle_of(self._plan, self._dir)
            with self._interrupts.cutting_short(collecting_too=True):  # there is nothing to collect yet
                if machine_of(lease).facts.get("had_before"):
                    aboard.host.clear([step.name for step in steps_of(self._plan)])
                send(aboard, there, self._plan, self._mirror, self._clock)
            lease = self._ledger.move_lease(lease.lease, LeaseState.STAGED, bundle=there.digest, bytes=there.bytes)
        if lease.state in (LeaseState.STAGED, LeaseState.DRAINED):
            lease = self._ledger.move_lease(lease.lease, LeaseState.BUSY)
        return replace(aboard, lease=lease)

    def _bring_model(self, aboard: Aboard) -> None:
        """A machine on which the model was not made is sent it, to be measured there."""
        there = f"out/{FINETUNE}/{TUNED}"
        if aboard.host.status(FINETUNE).state == "absent" and not aboard.host.read(there, 0, 1):
            aboard.host.put(self._dir / TUNED, there)

    def _why_stop(self, aboard: Aboard) -> str | None:
        """Why what there is should be collected now, if it should. What is to be paid leaves time to collect."""
        if self._interrupts.asked:
            return "asked to stop"
        overdue = self._clock.now() >= aboard.work_ends
        return f"the deadline of {aboard.candidate.ceiling.deadline_h:g} h is reached" if overdue else None

    def _keep_baseline(self) -> None:
        """Cache the baseline: a convenience for the next run, so no fault of this one."""
        try:
            baselines.keep(self._home, self._plan, self._dir / BEFORE)
        except OSError as error:
            self._mirror.say("warning", message=f"the baseline could not be kept for later: {in_words(error)}")

    def _remember_speed(self, aboard: Aboard) -> None:
        """Keep how fast this GPU trained: the next estimate stands on it."""
        choice = aboard.candidate
        now = iso(self._clock.now())
        measured = throughput_of(self._dir, self._run_id, choice.offer, choice.estimate, now)
        if measured is not None:
            self._ledger.add_throughput(measured)

    def _gate(self, *, cached: bool) -> None:
        """Ask whether tuning is worth it, where the job wants to know."""
        decision = gate_of(self._plan, self._dir / BEFORE)
        if decision is None:
            return
        with effect("run.gate"):
            write_json(self._dir / "gate.json", decision)
        self._mirror.say("gate", decision=decision["decision"], reasons=decision["reasons"], cached=cached)
        if decision["decision"] != "tune" and self._plan.gate is not None and not self._plan.gate.get("advisory"):
            reasons = " ".join(decision["reasons"])
            raise Ending(RunState.REFUSED, ExitCode.GATE_SAID_NO, f"the gate says {decision['decision']}: {reasons}")

    # -- the end ------------------------------------------------------------------------------------------

    def _hand_over(self) -> bool:
        """Give the machine to the run that is to have it next, where there is one; True when nothing is left here."""
        run = self._ledger.run(self._run_id)
        handing = Handing(self._home, self._ledger, self._run_id, self._mirror, self._clock)
        live = self._boarding.live()
        if len(live) == 1 and run.state is RunState.COLLECTED and not self._interrupts.asked:
            return handing.hand_over(live[0], self._boarding.provider_of(live[0]))
        if not live and run.outcome is None:
            handing.go_on()  # it was given away, and this run's runner died right after
        return False

    def _release_all(self) -> bool:
        """Release every lease of the run, with proof; True when nothing is left. One that fails keeps no other."""
        done = True
        for lease in self._ledger.leases(self._run_id):
            try:
                done = self._boarding.end(lease) and done
            except LedgerError:
                raise  # nothing can be told without it; `resume` and `reap` go on once it is back
            except Exception:  # noqa: BLE001  the other machines are released all the same, and this one is pending
                say_all()
                done = False
        return done

    def _settle(self, released: bool) -> ExitCode:
        """Settle the money, then write the report and the receipt; returns the exit code."""
        charged = self._ledger.settle(self._run_id)
        run = self._ledger.run(self._run_id)
        code = ExitCode(run.exit_code or 0) if released else ExitCode.RELEASE_PENDING
        told = (run, self._plan, self._dir, self._ledger)
        try:
            outcome = write_reports(*told, code=code, charged=charged, released=released)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001  a run that is over must say so, whatever its row files hold
            say_all()
            outcome = write_receipt_alone(
                *told, code=code, charged=charged, released=released,
                warning=f"the report could not be written: {in_words(error)}",
            )  # fmt: skip
        self._ledger.set_outcome(self._run_id, outcome)
        return code

    def _move(self, state: RunState, **facts: Any) -> None:
        self._ledger.move_run(self._run_id, state, **facts)
        self._mirror.say("state", state=state.value, reason=facts.get("reason"))
