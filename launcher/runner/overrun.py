"""Holds a training to the approved money and hours: forecasts it at its real pace and, where that breaks them, acts.

What the job's `on_overrun` says: `stop` collects what there is and ends; `trim` shortens the schedule to what the
money buys; `ask` asks whoever watches at a terminal, and stops where nobody does or nobody answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from launcher.clock import Clock, iso
from launcher.failpoints import effect
from launcher.hosts.base import Host
from launcher.ledger import Ledger
from launcher.plan import Plan
from launcher.providers.release import billed_since, machine_of
from launcher.runner.boarding import Aboard
from launcher.runner.control import answer_to, is_watched, put_question
from launcher.runner.forecast import Forecast, reforecast
from launcher.runner.mirror import Mirror
from launcher.runner.steps import FINETUNE
from recipes.contract import EVENTS, read_events, write_json
from recipes.finetune.stopping import TRIM_FILE

LOOK_S = 5.0  # between two forecasts
ANSWER_S = 120.0  # until somebody who was asked must have answered
NEWS = 1.1  # a forecast is told again when it has moved by so much
CHOICES = ("stop", "trim", "go on")


class Overrun:
    """One machine's training against what was approved."""

    def __init__(self, aboard: Aboard, plan: Plan, ledger: Ledger, run_id: str, run_dir: Path, mirror: Mirror,
                 clock: Clock) -> None:  # fmt: skip
        self._plan = plan.on(aboard.candidate)
        self._aboard, self._ledger, self._run_id, self._dir = aboard, ledger, run_id, run_dir
        self._mirror, self._clock = mirror, clock
        self._looked_at = -LOOK_S
        self._told_s: float | None = None
        self._asked_at: float | None = None
        self._trimmed_to: int | None = None
        self._goes_on = False

    def why_stop(self, step: str, host: Host) -> str | None:
        """Look, at most every few seconds: why training should stop now, if it should. May shorten its schedule."""
        now = self._clock.monotonic()
        if step != FINETUNE or self._plan.is_free or now - self._looked_at < LOOK_S:
            return None
        self._looked_at = now
        found = self._forecast()
        if found is None:
            return None
        self._tell(found)
        if not found.breaks or self._goes_on:
            return None
        wish = self._answer(found, now) if self._plan.on_overrun == "ask" else self._plan.on_overrun
        if wish == "trim" and self._trim(found, host):
            return None
        if wish in ("wait", "go on"):
            self._goes_on = wish == "go on"
            return None
        return f"the forecast breaks what was approved ({found.words})"

    def _forecast(self) -> Forecast | None:
        lease, now = self._aboard.lease, self._clock.now()
        machine = machine_of(lease)
        return reforecast(
            self._plan, machine.usd_per_hour, (now - billed_since(lease)).total_seconds(), _newest(self._dir),
            spent=self._ledger.spent(self._run_id), deadline_left_s=(self._aboard.work_ends - now).total_seconds(),
        )  # fmt: skip

    def _tell(self, found: Forecast) -> None:
        before, self._told_s = self._told_s, self._told_s or found.left_p50_s
        moved = max(found.left_p50_s, 1.0) / max(before or 1.0, 1.0)
        if before is None or (found.breaks and not 1 / NEWS < moved < NEWS):
            self._told_s = found.left_p50_s
            self._mirror.say("forecast", message=found.words, breaks=found.breaks, usd_p50=str(found.usd_p50))

    def _trim(self, found: Forecast, host: Host) -> bool:
        """Shorten the schedule to what fits; False when not one more step does."""
        if found.trim_to is None or found.trim_to <= found.step:
            return False
        if self._trimmed_to is not None and found.trim_to >= self._trimmed_to:
            return True  # on its way: the recipe reads it at its next step
        self._trimmed_to = found.trim_to
        file = self._dir / TRIM_FILE
        with effect("step.trim"):
            write_json(file, {"max_steps": found.trim_to})
        host.put(file, f"out/{FINETUNE}/{TRIM_FILE}")
        words = f"shortened to {found.trim_to:,} of {found.total:,} steps: what the approved amount buys"
        self._mirror.say("warning", message=words)
        return True

    def _answer(self, found: Forecast, now: float) -> str:
        """What whoever watches wants: one of CHOICES, or to wait for the answer; stop where nobody is there."""
        if self._asked_at is None:
            if not is_watched(self._dir):
                return "stop"
            self._asked_at = now
            put_question(self._dir, found.words, CHOICES, iso(self._clock.now() + timedelta(seconds=ANSWER_S)))
            self._mirror.say("question", message=found.words, choices=list(CHOICES))
        said = answer_to(self._dir)
        if said in CHOICES:
            return said
        return "wait" if now - self._asked_at < ANSWER_S and is_watched(self._dir) else "stop"


def _newest(run_dir: Path, most: int = 1 << 20) -> Iterable[dict[str, Any]]:
    """The last MiB of a run's events: thousands of steps, however long it runs."""
    file = run_dir / EVENTS
    size = file.stat().st_size if file.exists() else 0
    return [event for _, event in read_events(file, 0 if size <= most else _line_after(file, size - most))]


def _line_after(file: Path, offset: int) -> int:
    with file.open("rb") as held:
        held.seek(offset)
        return offset + len(held.readline())
