"""A run's own event file: what the runner says, and what each step's recipe says on its machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.hosts.base import Host
from recipes.contract import EVENTS, EventLog, read_events

FILE = EVENTS


class Mirror:
    """Appends events at home; after a restart it goes on from what is there already, never twice."""

    def __init__(self, run_dir: Path) -> None:
        self._log = EventLog(run_dir)
        self._offsets: dict[str, int] = {}
        for _, event in read_events(run_dir / FILE):
            if "src" in event:
                self._offsets[str(event["step"])] = int(event["src"])

    def say(self, kind: str, **fields: Any) -> None:
        """The runner's own event."""
        self._log.emit(kind, step="runner", **fields)

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
                    self._log.emit(kind, step=step, src=offset, at=when, **fields)
            self._offsets[step] = offset


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    for reserved in ("step_name", "src", "at"):
        event.pop(reserved, None)
    if "step" in event:  # the recipe's step counter; `step` here names the step of the run
        event["at_step"] = event.pop("step")
    return event
