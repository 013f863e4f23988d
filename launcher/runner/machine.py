"""The state machine of one run: lease, stage, execute step by step, collect, release, settle. Resumable anywhere."""

from __future__ import annotations

import re
import signal
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from launcher import baselines, bundle
from launcher.clock import Clock, iso, parse_iso
from launcher.errors import ExitCode, LauncherError, LedgerError
from launcher.estimate.measured import throughput_of
from launcher.home import Home
from launcher.hosts.base import Host, StepStatus
from launcher.hosts.lease_keys import LeaseKeys
from launcher.ledger import Lease, LeaseState, Ledger, Run, RunState
from launcher.plan import Plan, plan_of
from launcher.providers.base import Intent, Presence, Provider
from launcher.providers.release import charge, machine_of, release
from launcher.report.after_run import gate_of, write_receipt_alone, write_reports
from launcher.runner.collect import collect, list_again
from launcher.runner.control import stop_asked
from launcher.runner.mirror import Mirror
from launcher.runner.steps import AFTER, BEFORE, FINETUNE, Step, steps_of
from recipes.contract import RecipeExit, write_json
from recipes.finetune.stopping import STOP_FILE
from recipes.manifest import ManifestError

POLL_S = 0.25
COLLECT_PATIENCE_S = 180.0  # how long a recipe may take to save what it has, once asked to stop
MOST_RESTARTS = 3  # of a recipe that died without a word (out of memory here, a reboot)
KILLED, TERMINATED = 128 + signal.SIGKILL, 128 + signal.SIGTERM  # a recipe's exit codes when a signal ended it

_MEANS = {
    int(RecipeExit.BAD_INPUT): ExitCode.BAD_INPUT,
    int(RecipeExit.GATE_SAID_NO): ExitCode.GATE_SAID_NO,
}


class _Ending(Exception):  # noqa: N818
    """How a run ends other than by finishing: its state, exit code and reason."""

    def __init__(self, state: RunState, code: ExitCode, reason: str) -> None:
        self.state, self.code, self.reason = state, code, reason
        super().__init__(reason)


class Runner:
    """Executes one run. Every effect is journalled, so that a new Runner goes on where a killed one was."""

    def __init__(self, home: Home, ledger: Ledger, provider: Provider, run: Run, clock: Clock) -> None:
        self._home, self._ledger, self._provider, self._clock = home, ledger, provider, clock
        self._run_id = run.run
        self._plan = plan_of(run.run, run.plan)
        self._dir = home.run_dir(run.run)
        self._mirror = Mirror(self._dir)
        self._interrupted = False

    def interrupt(self, *_: object) -> None:
        """A signal handler: release now."""
        self._interrupted = True

    def execute(self) -> ExitCode:
        """Can leave something billing only if this process is killed; resume then goes on. Returns the exit code."""
        run = self._ledger.run(self._run_id)
        if not (self._dir / "plan.json").exists():
            write_json(self._dir / "plan.json", run.plan)
        if run.state is RunState.RESERVED:
            self._move(RunState.RUNNING)
        if self._ledger.run(self._run_id).state is RunState.RUNNING:
            try:
                self._work()
                self._move(RunState.COLLECTED)
            except _Ending as end:
                self._move(end.state, reason=end.reason, exit_code=int(end.code))
            except LedgerError:
                raise  # nothing can be told or released without it; all of it can once it is back
            except Exception as error:  # noqa: BLE001  nothing skips the release, not even a fault of ours
                traceback.print_exc()
                self._move(RunState.FAILED, reason=_in_words(error), exit_code=int(ExitCode.RECIPE_FAILED))
        released = self._release_all()
        if self._ledger.run(self._run_id).state is RunState.COLLECTED:
            limit = (self._ledger.step(self._run_id, FINETUNE) or {}).get("limit")
            if self._plan.recipe == FINETUNE and self._ledger.step(self._run_id, AFTER) is None:
                limit = limit or "stopped before the tuned model was measured"
            state, code = (RunState.STOPPED, ExitCode.STOPPED_AT_LIMIT) if limit else (RunState.SETTLED, ExitCode.OK)
            self._move(state, reason=limit, exit_code=int(code))
        return self._settle(released)

    # -- the work -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Lease, stage, and every step with its artefacts home; raises _Ending for any other end."""
        if self._interrupted or stop_asked(self._dir) == "now":  # asked while no runner lived, perhaps
            self._check_stop()
        if stop_asked(self._dir) and not self._live_leases():
            raise self._nothing_kept("asked to stop", "before it began")
        lease = self._lease()
        host = self._provider.connect(machine_of(lease), LeaseKeys(self._dir / "keys" / lease.lease))
        assert host is not None  # this machine's, always
        lease = self._staged(lease, host)
        for step in steps_of(self._plan):
            result = self._ledger.step(self._run_id, step.name)
            if result is None:
                why = self._why_stop(lease)
                if why and host.status(step.name).state == "absent":
                    if step.name == AFTER:
                        break  # the model is home: it is kept, unmeasured
                    raise self._nothing_kept(why, f"before {step.name}")
                if step.name == BEFORE and baselines.restore(self._home, self._plan, self._dir / BEFORE):
                    result = {"cached": True}
                    self._mirror.say("note", message="baseline: measured before, taken from the cache")
                else:
                    result = self._perform(step, host, lease)
                self._ledger.set_step(self._run_id, step.name, "done", result)
                if step.name == FINETUNE:
                    self._remember_speed()
            if step.name == BEFORE:
                if not result.get("cached"):
                    self._keep_baseline()
                self._gate(cached=bool(result.get("cached")))
        if self._ledger.leases(self._run_id)[-1].state is LeaseState.BUSY:
            self._ledger.move_lease(lease.lease, LeaseState.DRAINED)

    def _lease(self) -> Lease:
        """The run's live lease, adopted or created. Can leave something billing."""
        leases = self._live_leases()
        lease = leases[-1] if leases else self._intend()
        if lease.state in (LeaseState.RELEASING, LeaseState.RELEASE_PENDING):
            raise _Ending(
                RunState.FAILED, ExitCode.RECIPE_FAILED, "the runner died while releasing; nothing is left to do"
            )
        if lease.state in (LeaseState.INTENDED, LeaseState.UNKNOWN):
            presence, machine = self._provider.find(lease.label)
            if presence is Presence.UNKNOWN:
                raise _Ending(
                    RunState.FAILED, ExitCode.RECIPE_FAILED, f"{lease.provider} does not say what {lease.label} is"
                )
            if machine is None:
                intent = Intent(
                    lease.label, self._plan.choice.offer, lease.max_usd_per_hour, lease.deadline, lease.reserved_usd
                )
                machine = self._provider.create(intent)
            rate = {"ref": machine.ref, "usd_per_hour": str(machine.usd_per_hour)}
            lease = self._ledger.move_lease(lease.lease, LeaseState.CREATED, machine=rate)
        held = machine_of(lease)
        if held.usd_per_hour > lease.max_usd_per_hour:  # invariant 7: the provider's own word, at renting
            words = f"{lease.provider} rents {lease.offer_id} at ${held.usd_per_hour}/h, not at the "
            raise _Ending(
                RunState.REFUSED, ExitCode.REFUSED, f"{words}${lease.max_usd_per_hour}/h approved; released at once"
            )
        if lease.state is LeaseState.CREATED:
            lease = self._ledger.move_lease(lease.lease, LeaseState.ARMED, deadline=lease.deadline)
        return lease

    def _live_leases(self) -> list[Lease]:
        return [lease for lease in self._ledger.leases(self._run_id) if lease.state is not LeaseState.RELEASED]

    def _intend(self) -> Lease:
        choice = self._plan.choice
        ends = self._clock.now() + timedelta(hours=self._plan.deadline_h)
        return self._ledger.intend_lease(
            self._run_id, provider=choice.offer.provider, account="here", offer_id=choice.offer.offer_id,
            max_usd_per_hour=choice.ceiling.max_usd_per_hour, reserved=self._plan.ceiling_usd, deadline=iso(ends),
        )  # fmt: skip

    def _staged(self, lease: Lease, host: Host) -> Lease:
        """Send the bundle; a machine that has it already is not sent it again."""
        if lease.state is LeaseState.ARMED:
            self._mirror.say("phase", name="staging")
            manifests = {name: Path(path) for name, path in _paths(self._plan).items()}
            base = str(self._plan.spec.get("base", self._plan.spec.get("model", "")))
            link = self._provider.name == "local"
            there = bundle.stage(
                self._dir / "bundle", manifests, Path(base) if base.endswith(".nemo") else None, link=link
            )
            for part in ("code", "data", *(("base.nemo",) if base.endswith(".nemo") else ())):
                host.put(there.root / part, part)
            lease = self._ledger.move_lease(lease.lease, LeaseState.STAGED, bundle=there.digest, bytes=there.bytes)
        if lease.state in (LeaseState.STAGED, LeaseState.DRAINED):
            lease = self._ledger.move_lease(lease.lease, LeaseState.BUSY)
        return lease

    def _perform(self, step: Step, host: Host, lease: Lease) -> dict[str, Any]:
        """Start a step, or follow it where it runs already; follow to its end; bring its artefacts home."""
        self._ledger.set_step(self._run_id, step.name, "started")
        self._mirror.say("phase", name=step.name)
        out = f"out/{step.name}"
        spec = self._dir / "specs" / f"{step.name}.json"
        write_json(spec, step.spec_there(host.path))
        restarts, asked, asked_at, killed = 0, None, 0.0, False
        while True:
            status = host.status(step.name)
            why = self._why_stop(lease)
            if status.state == "absent" or self._goes_on(step, status, why, tried=killed or asked is not None):
                if status.state != "absent":
                    restarts += 1
                    if restarts > MOST_RESTARTS:
                        words = f"{step.name} died {restarts} times without a word"
                        raise _Ending(RunState.FAILED, ExitCode.RECIPE_FAILED, f"{words}: {_OUT_OF_MEMORY}")
                    self._mirror.say(
                        "warning", message=f"{step.name} died without a word; it goes on from its last checkpoint"
                    )
                if why and status.state != "absent":  # it only has to come up, save what it has, and end
                    (self._dir / STOP_FILE).touch()
                    host.put(self._dir / STOP_FILE, f"{out}/{STOP_FILE}")
                    asked, asked_at = why, self._clock.monotonic()
                host.put(spec, f"specs/{step.name}.json")
                argv = [
                    host.python,
                    "-m",
                    f"recipes.{step.recipe}",
                    host.path(f"specs/{step.name}.json"),
                    host.path(out),
                ]
                host.start(step.name, argv, {"PYTHONPATH": host.path("code"), "PYTHONUNBUFFERED": "1"})
                continue
            self._mirror.pull(host, step.name, out)
            if status.state != "running":
                break
            if self._interrupted or stop_asked(self._dir) == "now":
                self._check_stop()
            if asked is None and why:
                self._mirror.say("note", message=f"{why}: collecting what there is")
                host.signal(step.name, signal.SIGTERM)
                asked, asked_at = why, self._clock.monotonic()
            if asked and not killed and self._clock.monotonic() - asked_at > COLLECT_PATIENCE_S:
                host.signal(step.name, signal.SIGKILL)
                killed = True
            self._clock.sleep(POLL_S)
        self._mirror.pull(host, step.name, out)
        return self._ended(step, host, out, status.code, asked or why)

    def _why_stop(self, lease: Lease) -> str | None:
        """Why what there is should be collected now, if it should."""
        if stop_asked(self._dir):
            return "asked to stop"
        overdue = self._clock.now() >= parse_iso(lease.deadline)
        return f"the deadline of {self._plan.deadline_h:g} h is reached" if overdue else None

    def _goes_on(self, step: Step, status: StepStatus, why: str | None, *, tried: bool) -> bool:
        """Whether a step that died is started again: to go on, or, when it should stop, to save its checkpoint."""
        died = status.state == "lost" or status.code == KILLED
        if why is None:
            return died and not tried
        # A recipe asked to stop while it loads dies of the signal, though an earlier attempt left a checkpoint.
        died = died or status.code == TERMINATED
        return died and not tried and step.name == FINETUNE and self._mirror.at_step(step.name) > 0

    def _nothing_kept(self, why: str, when: str) -> _Ending:
        code = ExitCode.INTERRUPTED if stop_asked(self._dir) else ExitCode.RECIPE_FAILED
        return _Ending(RunState.STOPPED, code, f"{why} {when}; there was nothing to keep yet")

    def _ended(self, step: Step, host: Host, out: str, code: int | None, asked: str | None) -> dict[str, Any]:
        """Judge how a step ended and collect what it made."""
        if code in (RecipeExit.DONE, RecipeExit.STOPPED_AT_LIMIT):
            target = self._dir if step.name == FINETUNE else self._dir / step.name
            artifacts = collect(host, out, target)
            index = bundle.Bundle.load(self._dir / "bundle")
            for folder, manifest in step.rows.items():
                bundle.bring_home(target / folder, manifest, index.homeward)
            if step.name == FINETUNE:
                bundle.relink(self._dir)
            list_again(target, artifacts)
            limit = "stopped before the end of its schedule" if code == RecipeExit.STOPPED_AT_LIMIT else None
            return {"artifacts": [a.path for a in artifacts], "limit": limit}
        said = host.read(f"steps/{step.name}/log", 0, 1 << 24).decode("utf-8", "replace").strip().splitlines()
        (self._dir / f"{step.name}.log").write_text("\n".join(said) + "\n", encoding="utf-8")
        if asked and step.name == AFTER:
            words = f"{asked} before the tuned model was measured"
            raise _Ending(RunState.STOPPED, ExitCode.STOPPED_AT_LIMIT, words)
        if asked:
            raise self._nothing_kept(asked, f"during {step.name}")
        words = self._mirror.failure(step.name, code) or _exit_in_words(code, said)
        what = _MEANS.get(code or 0, ExitCode.RECIPE_FAILED)
        raise _Ending(RunState.FAILED, what, f"{step.name} failed: {_plain(words)}")

    def _keep_baseline(self) -> None:
        """Cache the baseline: a convenience for the next run, so no fault of this one."""
        try:
            baselines.keep(self._home, self._plan, self._dir / BEFORE)
        except OSError as error:
            self._mirror.say("warning", message=f"the baseline could not be kept for later: {_in_words(error)}")

    def _remember_speed(self) -> None:
        """Keep how fast this GPU trained: the next estimate stands on it."""
        choice = self._plan.choice
        now = iso(self._clock.now())
        measured = throughput_of(self._dir, self._run_id, choice.offer, choice.estimate, now)
        if measured is not None:
            self._ledger.add_throughput(measured)

    def _gate(self, *, cached: bool) -> None:
        """Ask whether tuning is worth it, where the job wants to know."""
        decision = gate_of(self._plan, self._dir / BEFORE)
        if decision is None:
            return
        write_json(self._dir / "gate.json", decision)
        self._mirror.say("gate", decision=decision["decision"], reasons=decision["reasons"], cached=cached)
        if decision["decision"] != "tune" and self._plan.gate is not None and not self._plan.gate.get("advisory"):
            reasons = " ".join(decision["reasons"])
            raise _Ending(RunState.REFUSED, ExitCode.GATE_SAID_NO, f"the gate says {decision['decision']}: {reasons}")

    def _check_stop(self) -> None:
        if self._interrupted:
            raise _Ending(RunState.CANCELLED, ExitCode.INTERRUPTED, "interrupted; released at once")
        raise _Ending(RunState.CANCELLED, ExitCode.INTERRUPTED, "stopped; released at once")

    # -- the end ------------------------------------------------------------------------------------------

    def _release_all(self) -> bool:
        """Release every lease of the run, with proof; True when nothing is left."""
        done = True
        for lease in self._ledger.leases(self._run_id):
            released = release(self._ledger, lease, self._provider, self._clock)
            self._mirror.say("lease", lease=lease.lease, state=released.state.value, proof=released.proof or [])
            if released.state is LeaseState.RELEASED:
                charge(self._ledger, released, self._provider)
            done = done and released.state is LeaseState.RELEASED
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
            traceback.print_exc()
            outcome = write_receipt_alone(
                *told, code=code, charged=charged, released=released,
                warning=f"the report could not be written: {_in_words(error)}",
            )  # fmt: skip
        self._ledger.set_outcome(self._run_id, outcome)
        return code

    def _move(self, state: RunState, **facts: Any) -> None:
        self._ledger.move_run(self._run_id, state, **facts)
        self._mirror.say("state", state=state.value, reason=facts.get("reason"))


_OUT_OF_MEMORY = "most likely this machine ran out of memory"
_ANSI = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")


def _plain(words: str) -> str:
    """One line without the colours a recipe's log may have."""
    return "; ".join(line.strip() for line in _ANSI.sub("", words).splitlines() if line.strip())[:500]


def _exit_in_words(code: int | None, said: list[str]) -> str:
    last = next((line for line in reversed(said) if _plain(line)), "")
    if code is not None and code > 128:
        name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code - 128)
        return f"killed by {name}{f': {_OUT_OF_MEMORY}' if code == KILLED else ''}"
    return last or f"exit code {code}"


def _in_words(error: Exception) -> str:
    """An error for a person: one that we foresaw says what to do; any other where the whole story is."""
    if isinstance(error, LauncherError | ManifestError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return f"{type(error).__name__}: {error} (a fault of the launcher: runner.log has the whole story)"


def _paths(plan: Plan) -> dict[str, str]:
    names = ("train", "validation", "general_train", "general_validation")
    return {name: plan.data[name] for name in names if plan.data.get(name)}
