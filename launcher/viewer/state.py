"""What a run's events amount to, so that a live view and plain lines say the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STEP_WORDS = {
    "before": "measuring the base model",
    "finetune": "fine-tuning",
    "after": "measuring the tuned model",
    "staging": "getting ready",
    "runner": "runner",
}


@dataclass
class Progress:
    """Where a run stands, folded from its events one by one."""

    step: str = ""
    phase: str = ""
    at_step: int = 0
    total: int = 0
    loss: float | None = None
    losses: list[float] = field(default_factory=list)
    val_wer: float | None = None
    best_wer: float | None = None
    best_at: int = 0
    stage: str = ""  # of a language that is learned from nothing
    seconds_per_step: float | None = None
    state: str = ""
    phases: set[str] = field(default_factory=set)
    told: str = ""
    said: list[str] = field(default_factory=list)

    def fold(self, event: dict[str, Any]) -> str | None:
        """Take one event in; returns the line worth printing, if it is worth one."""
        kind, step = event.get("kind"), str(event.get("step", ""))
        if kind == "phase":
            return self._phase(step, " ".join(str(event.get("name", "")).split()))
        if kind == "progress":
            return self._progress(event)
        if kind == "stage":
            return self._stage(event)
        if kind == "forecast" and not event.get("breaks"):
            return None
        if kind in ("warning", "note", "trim", "forecast"):
            said = " ".join(str(event.get("message", "")).split())  # a line of ours is not a machine's to begin
            words = f"{'warning: ' if kind == 'warning' else ''}{said}"
            self.said.append(words)
            return f"  {words}"
        if kind == "gate":
            # A baseline from the cache was told of, gate and all, when it was measured.
            told = bool(event.get("cached"))
            return (
                None if told else f"Worth tuning? {verdict(str(event.get('decision')))} {' '.join(event['reasons'])}"
            )
        if kind == "lease":
            proof = " · ".join(str(line) for line in event.get("proof", []))
            return f"released: {proof}" if event.get("state") == "released" else f"NOT RELEASED: {event.get('state')}"
        if kind == "state":
            self.state = str(event.get("state", ""))
        return None

    @property
    def eta_s(self) -> float | None:
        """Seconds left in this phase, when its pace is known."""
        if self.seconds_per_step is None or not self.total:
            return None
        return max(0, self.total - self.at_step) * self.seconds_per_step

    def _phase(self, step: str, name: str) -> str | None:
        if step == "runner":
            self.step, self.phase = name, ""
            self.phases.clear()
            self.at_step = self.total = 0
            # Figures belong to the step that made them: measuring has no loss.
            self.loss = self.val_wer = self.best_wer = self.seconds_per_step = None
            self.losses.clear()
            self.stage = ""
            return STEP_WORDS.get(name, name)
        self.phase = name
        if name in self.phases:  # validating and saving come round again and again
            return None
        self.phases.add(name)
        return f"  {name}"

    def _stage(self, event: dict[str, Any]) -> str | None:
        name, before = " ".join(str(event.get("name", "")).split())[:20], self.stage
        self.stage = name
        words = " ".join(str(event.get("message", "")).split())
        return f"  stage: {name}{f' ({words})' if words else ''}" if name and name != before else None

    def _progress(self, event: dict[str, Any]) -> str | None:
        before = _tenth(self.at_step, self.total)
        self.at_step = int(event.get("at_step") or 0)
        self.total = int(event.get("total") or 0)
        self.seconds_per_step = event.get("seconds_per_step") or self.seconds_per_step
        loss = event.get("loss")
        if isinstance(loss, int | float):
            self.loss = float(loss)
            self.losses.append(self.loss)
        wer = (event.get("metrics") or {}).get("val_wer")
        news = isinstance(wer, int | float)
        if isinstance(wer, int | float):
            self.val_wer = float(wer)
            if self.best_wer is None or self.val_wer < self.best_wer:
                self.best_wer, self.best_at = self.val_wer, self.at_step
        if not news and _tenth(self.at_step, self.total) == before:
            return None
        line = f"  {self.line()}"
        if line == self.told:
            return None
        self.told = line
        return line

    def line(self) -> str:
        """One line of figures."""
        parts = [f"{self.at_step:,}/{self.total:,}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.2f}")
        if self.val_wer is not None:
            best = f" (best {100 * self.best_wer:.1f}% at {self.best_at:,})" if self.best_wer is not None else ""
            parts.append(f"val WER {100 * self.val_wer:.1f}%{best}")
        if self.stage:
            parts.append(f"stage: {self.stage}")
        if self.eta_s is not None and self.eta_s >= 1:
            parts.append(f"{clock_words(self.eta_s)} left")
        return " · ".join(parts)


def verdict(decision: str) -> str:
    """A gate's decision as an answer."""
    return "yes:" if decision == "tune" else f"not yet ({decision}):"


def clock_words(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 17 min, 2.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tenth(step: int, total: int) -> int:
    return 10 * step // total if total else -1


def sparkline(values: list[float], width: int = 24) -> str:
    """The course of a figure as bars, newest right."""
    if len(values) < 2:
        return ""
    picked = [values[i * (len(values) - 1) // max(1, width - 1)] for i in range(min(width, len(values)))]
    low, high = min(picked), max(picked)
    span = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / span)] for value in picked)
