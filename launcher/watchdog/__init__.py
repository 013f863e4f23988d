"""The machine's own end: a process on it that needs nobody of ours to stop all work there, and the machine itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from launcher.clock import Clock
from launcher.hosts.base import Host
from launcher.layers import is_off

STEP: Literal["watchdog"] = "watchdog"
TOLD = "watchdog.json"  # in the lease's folder: what it did, for whoever still comes to look
_TEXT = Path(__file__).with_name("on_box.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Request:
    """The call by which a machine destroys itself, with the right that its provider gave to it alone.

    `${NAME}` and `${NAME:-default}` in any of its strings name settings of the machine's first process: what they
    hold is known on that machine only. No value of ours belongs here.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


def watch(host: Host, deadline: datetime, destroy: Request | None, clock: Clock) -> None:
    """Start the watchdog on the machine, once; from `deadline` on it ends all work there, whatever became of us.

    With `destroy` it asks the provider for the machine's end, again and again until it is gone; without, or while
    that fails, it wipes the lease's folder. Seconds are counted there from now on: no clock has to agree with ours.
    """
    if is_off(STEP):
        return
    seconds = max(0.0, (deadline - clock.now()).total_seconds())
    root = str(PurePosixPath(host.path(STEP)).parent)
    orders = json.dumps({"root": root, "seconds": seconds, "destroy": asdict(destroy) if destroy else None})
    host.start(STEP, ["python3", "-I", "-S", "-c", _TEXT, orders], {})
