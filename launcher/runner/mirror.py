"""A run's own event file: what the runner says, and what each step's recipe says on its machine."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.events import sound
from launcher.failpoints import effect
from launcher.hosts.base import Host
from recipes.contract import EVENTS, EventLog, read_events

FILE = EVENTS


class Mirror:
    """Appends events at home; after a restart it goes on from what is there already, never twice."""

    def __init__(self, run_dir: Path) -> None:
        with effect("event.open"):
            self._log = EventLog(run_dir)
        self._offsets: dict[str, int] = {}
        self._at_step: dict[str, int] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._checkpoints: dict[str, dict[str, Any]] = {}
        self._lease = ""
        for _, event in read_events(run_dir / FILE):
            if event.get("kind") == "aboard":
                self._on(str(event.get("lease")))
            elif "src" in event:
                self._offsets[str(event["step"])] = int(event["src"])
                self._remember(str(event["step"]), event)

    def aboard(self, lease: str) -> None:
        """From now on steps are those of this lease's machine, whose event files begin anew."""
        if lease != self._lease:
            self.say("aboard", lease=lease)
            self._on(lease)

    def _on(self, lease: str) -> None:
        if lease != self._lease:
            self._lease = lease
            self._offsets.clear()
            self._checkpoints.clear()

    def begin_anew(self, step: str) -> None:
        """What a step wrote on this machine is gone: its next event file begins at its first line."""
        self._offsets.pop(step, None)
        self._checkpoints.pop(step, None)

    def say(self, kind: str, **fields: Any) -> None:
        """The runner's own event."""
        self._emit(kind, step="runner", **fields)

    def at_step(self, step: str) -> int:
        """How far a step's recipe said it has come."""
        return self._at_step.get(step, 0)

    def checkpoint(self, step: str) -> dict[str, Any] | None:
        """The newest checkpoint that a step has written on its machine: its name and bytes."""
        return self._checkpoints.get(step)

    def failure(self, step: str, code: int | None) -> str | None:
        """What a step's recipe said when it last ended with this exit code."""
        held = self._failures.get(step)
        return str(held.get("message")) if held and held.get("code") == code else None

    def _remember(self, step: str, event: dict[str, Any]) -> None:
        if event.get("kind") == "failure":
            self._failures[step] = event
        elif event.get("kind") == "checkpoint":
            self._checkpoints[step] = event
        elif event.get("kind") == "progress" and isinstance(event.get("at_step"), int):
            self._at_step[step] = event["at_step"]

    @effect("event.write")
    def _emit(self, kind: str, **fields: Any) -> None:
        with suppress(OSError):  # a full disk may keep a viewer from seeing it, not the runner from releasing
            self._log.emit(kind, **fields)

    @effect("event.pull")
    def pull(self, host: Host, step: str, out: str) -> None:
        """Copy the whole lines that a step's recipe has written since the last pull."""
        offset = self._offsets.get(step, 0)
        while chunk := host.read(f"{out}/{EVENTS}", offset):
            whole, newline, _ = chunk.rpartition(b"\n")
            if not newline:
                return
            for line in whole.split(b"\n"):
                offset += len(line) + 1
                fields = _parse(line)
                if fields is not None:
                    kind, when = str(fields.pop("kind", "note")), fields.pop("t", None)
                    self._remember(step, {"kind": kind, **fields})
                    self._emit(kind, step=step, src=offset, at=when, **fields)
            self._offsets[step] = offset


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    event = sound(event)
    for reserved in ("step_name", "src", "at"):
        event.pop(reserved, None)
    if "step" in event:  # the recipe's step counter; `step` here names the step of the run
        event["at_step"] = event.pop("step")
    return event
