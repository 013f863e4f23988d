"""One step of a run on its machine: started once, followed to its end however often the line drops, brought home."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher import bundle
from launcher.clock import Clock, parse_iso
from launcher.errors import ExitCode
from launcher.failpoints import effect
from launcher.hosts.base import Host, StepStatus
from launcher.hosts.gang import Gang, nodes_of
from launcher.ledger import Ledger, RunState
from launcher.providers.release import machine_of
from launcher.runner.boarding import Aboard
from launcher.runner.collect import Make, collect, list_again
from launcher.runner.ending import KILLED, OUT_OF_MEMORY, TERMINATED, Ending, exit_in_words, failed, plain
from launcher.runner.interrupts import Interrupts
from launcher.runner.keeping import Keeping, send_kept
from launcher.runner.mirror import Mirror
from launcher.runner.overrun import Overrun
from launcher.runner.staging import command, is_rented
from launcher.runner.steps import AFTER, FINETUNE, LABELS, Step
from launcher.runner.together import end_everywhere, start_together
from launcher.transfer import sent_bundle
from recipes.contract import RecipeExit, write_atomic, write_json
from recipes.finetune.stopping import STOP_FILE

POLL_S, POLL_THERE_S = 0.25, 1.0  # between two looks at a step: here, and over a line
COLLECT_PATIENCE_S = 180.0  # how long a recipe may take to save what it has, once asked to stop
MOST_RESTARTS = 3  # of a recipe that died without a word (out of memory there, a reboot)

_MEANS = {
    int(RecipeExit.BAD_INPUT): ExitCode.BAD_INPUT,
    int(RecipeExit.GATE_SAID_NO): ExitCode.GATE_SAID_NO,
}
WhyStop = Callable[[], str | None]


class Performing:
    """The steps of one run on one machine. `why_stop` says why to collect now what there is, if so."""

    def __init__(self, aboard: Aboard, ledger: Ledger, run_id: str, run_dir: Path, mirror: Mirror,
                 interrupts: Interrupts, clock: Clock, *, why_stop: WhyStop,
                 overrun: Overrun, make: Make) -> None:  # fmt: skip
        self._aboard, self._host, self._ledger, self._run_id, self._dir = aboard, aboard.host, ledger, run_id, run_dir
        self._mirror, self._interrupts, self._clock, self._why_stop = mirror, interrupts, clock, why_stop
        self._overrun, self._make = overrun, make
        self._keeping = Keeping(aboard, run_dir, mirror, clock)

    def perform(self, step: Step) -> dict[str, Any]:
        """Start a step, or follow it where it runs already; follow to its end; bring its artefacts home."""
        host = self._host
        self._ledger.set_step(self._run_id, step.name, "started")
        self._mirror.say("phase", name=step.name)
        with self._interrupts.cutting_short():
            code, asked = self._follow(step, host)
            self._mirror.pull(host, step.name, f"out/{step.name}")
            return self._ended(step, host, f"out/{step.name}", code, asked)

    def _follow(self, step: Step, host: Host) -> tuple[int | None, str | None]:
        """To the step's end: its exit code, and why it was asked to stop, if it was."""
        out, spec = f"out/{step.name}", self._dir / "specs" / f"{step.name}.json"
        with effect("step.spec"):
            write_json(spec, step.spec_there(host.path))
        restarts, asked, asked_at, killed = 0, None, 0.0, False
        several = isinstance(host, Gang) and step.name == FINETUNE  # a measurement is one machine's
        if several and host.status(step.name).state != "absent":
            self._arm_again()  # who started it may have died before the end was set anew
        while True:
            status = host.status(step.name)
            why = self._why_stop() or (self._overrun.why_stop(step.name, host) if asked is None else None)
            if status.state == "absent" or self._goes_on(step, status, why, tried=killed or asked is not None):
                died = status.state != "absent"
                if died:
                    restarts += 1
                    self._arm_again()
                    if restarts > MOST_RESTARTS:
                        raise failed(f"{step.name} died {restarts} times without a word: {OUT_OF_MEMORY}")
                    self._mirror.say(
                        "warning", message=f"{step.name} died without a word; it goes on from its last checkpoint"
                    )
                    if several:
                        status = self._begin_anew(step.name)
                if why and died:  # it only has to come up, save what it has, and end
                    with effect("step.stop"):
                        (self._dir / STOP_FILE).touch()
                    host.put(self._dir / STOP_FILE, f"{out}/{STOP_FILE}")
                    asked, asked_at = why, self._clock.monotonic()
                self._start(step, host, out, spec, fresh=status.state == "absent", several=several)
                continue
            self._mirror.pull(host, step.name, out)
            if status.state != "running":
                return status.code, asked or why
            self._interrupts.refuse_now()
            if asked is None and why:
                self._mirror.say("note", message=f"{why}: collecting what there is")
                host.signal(step.name, signal.SIGTERM)
                asked, asked_at = why, self._clock.monotonic()
            if asked and not killed and self._clock.monotonic() - asked_at > COLLECT_PATIENCE_S:
                host.signal(step.name, signal.SIGKILL)
                killed = True
            self._keeping.look(step.name, out)
            self._clock.sleep(POLL_THERE_S if is_rented(host) else POLL_S)

    def _start(self, step: Step, host: Host, out: str, spec: Path, *, fresh: bool, several: bool) -> None:
        """Start a step, on one machine or on several; one that is fresh there goes on from what is kept here."""
        for node in nodes_of(host) if several else (host,):
            kept = send_kept(node, self._dir, step.name, out) if fresh else None
            if kept:
                self._mirror.say("note", message=f"{step.name} goes on from {kept}, which was kept here")
            node.put(spec, f"specs/{step.name}.json")
        argv, env = command(self._aboard, step.recipe, f"specs/{step.name}.json", out)
        if several:
            start_together(self._aboard, step.name, argv, env, self._clock)
        else:
            host.start(step.name, argv, env)

    def _begin_anew(self, step: str) -> StepStatus:
        """A step of several machines that died begins anew on all, with the checkpoint that is kept here.

        They must all go on from the same one, and only the first machine has any of its own.
        """
        assert isinstance(self._host, Gang)
        end_everywhere(self._host, step, self._clock)
        self._host.clear([step])
        self._mirror.begin_anew(step)
        return StepStatus("absent")

    def _arm_again(self) -> None:
        """What took a step without a word (a reboot, a full memory) may have taken the machine's own end, too."""
        lease = self._aboard.lease
        self._aboard.provider.arm(machine_of(lease), self._host, parse_iso(lease.deadline))

    def _goes_on(self, step: Step, status: StepStatus, why: str | None, *, tried: bool) -> bool:
        """Whether a step that died is started again: to go on, or, when it should stop, to save its checkpoint."""
        died = status.state == "lost" or status.code == KILLED
        if why is None:
            return died and not tried
        # A recipe asked to stop while it loads dies of the signal, though an earlier attempt left a checkpoint.
        died = died or status.code == TERMINATED
        return died and not tried and step.name == FINETUNE and self._mirror.at_step(step.name) > 0

    def nothing_kept(self, why: str, when: str) -> Ending:
        """The end of a run that was stopped before there was a model."""
        code = ExitCode.INTERRUPTED if self._interrupts.asked else ExitCode.RECIPE_FAILED
        return Ending(RunState.STOPPED, code, f"{why} {when}; there was nothing to keep yet")

    @effect("step.end")
    def _ended(self, step: Step, host: Host, out: str, code: int | None, asked: str | None) -> dict[str, Any]:
        """Judge how a step ended and collect what it made."""
        if code in (RecipeExit.DONE, RecipeExit.STOPPED_AT_LIMIT):
            target = self._dir if step.name in (FINETUNE, LABELS) else self._dir / step.name
            artifacts = collect(host, out, target, self._make)
            sent = sent_bundle(self._dir)
            for folder, manifest in step.rows.items():
                bundle.bring_home(target / folder, manifest, sent.homeward)
            if step.name == FINETUNE:
                bundle.relink(self._dir, sent.root)
            list_again(target, artifacts)
            limit = None
            if code == RecipeExit.STOPPED_AT_LIMIT:
                limit = "stopped before the end of its schedule" + (f": {asked}" if asked else "")
            return {"artifacts": [a.path for a in artifacts], "limit": limit}
        said = host.read(f"steps/{step.name}/log", 0, 1 << 24).decode("utf-8", "replace").strip().splitlines()
        write_atomic(self._dir / f"{step.name}.log", "\n".join(said) + "\n")
        if asked and step.name == AFTER:
            words = f"{asked} before the tuned model was measured"
            raise Ending(RunState.STOPPED, ExitCode.STOPPED_AT_LIMIT, words)
        if asked:
            raise self.nothing_kept(asked, f"during {step.name}")
        words = self._mirror.failure(step.name, code) or exit_in_words(code, said)
        what = _MEANS.get(code or 0, ExitCode.RECIPE_FAILED)
        raise Ending(RunState.FAILED, what, f"{step.name} failed: {plain(words)}")
