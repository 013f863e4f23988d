"""The machine's own end: a process on it that needs nobody of ours to stop all work there, and the machine itself."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from launcher.clock import Clock
from launcher.errors import BadInputError
from launcher.hosts.base import Host
from launcher.hosts.ssh import SshHost
from launcher.layers import is_off
from launcher.providers.live import endpoint

STEP: Literal["watchdog"] = "watchdog"
TOLD = "watchdog.json"  # in the lease's folder: what it did, for whoever still comes to look
COLLECT_S = 1800.0  # how long a machine on which nothing runs waits for somebody of ours before it ends itself
COLLECT_WAIT = "LAUNCHER_COLLECT_WAIT_S"
_TEXT = Path(__file__).with_name("on_box.py").read_text(encoding="utf-8")
#: Beside the lease's folder, on a machine that is ours alone: caches of models, what NeMo unpacks in passing.
_ALSO = ("{home}/.cache/huggingface", "{home}/.cache/torch", "/tmp/tmp*")  # noqa: S108


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


def watch(host: Host, deadline: datetime, destroy: Request | None, clock: Clock, provider: str = "") -> None:
    """Start the watchdog on the machine, once; from `deadline` on it ends all work there, whatever became of us.

    It does so earlier where nothing has run and nobody of ours was heard for collect_wait_s(). With `destroy` it
    asks the provider for the machine's end, again and again until it is gone; without, or while that fails, it wipes
    what was sent and made there. Seconds are counted there from now on: no clock has to agree with ours. `provider`
    is whose clock it compares its own with.
    """
    if is_off(STEP):
        return
    seconds = max(0.0, (deadline - clock.now()).total_seconds())
    root = PurePosixPath(host.path(STEP)).parent
    also = [text.format(home=root.parent.parent) for text in _ALSO] if isinstance(host, SshHost) else []
    orders = {"root": str(root), "seconds": seconds, "collect_s": collect_wait_s(), "also": also,
              "clock": endpoint(provider), "destroy": asdict(destroy) if destroy else None}  # fmt: skip
    host.start(STEP, ["python3", "-I", "-S", "-c", _TEXT, json.dumps(orders)], {})


def collect_wait_s() -> float:
    """Seconds that an idle machine waits for somebody of ours; $LAUNCHER_COLLECT_WAIT_S, else half an hour."""
    told = os.environ.get(COLLECT_WAIT)
    if not told:
        return COLLECT_S
    try:
        seconds = float(told)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 86_400:
        raise BadInputError("is no time to wait.", key=COLLECT_WAIT, value=told, fix="Give seconds, such as 1800.")
    return seconds
