"""How a test waits for what another process does: until it happened, and never for ever.

With LAUNCHER_TEST_LATE_S every wait comes so many seconds late to what it waited for, as on a machine that has no
time for the test: a test that relies on being quick ("while it still trains") fails there instead of now and then.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

LATE_S = float(os.environ.get("LAUNCHER_TEST_LATE_S", "0"))


def until(
    what: Callable[[], Any],
    timeout_s: float = 180.0,
    pause_s: float = 0.05,
    *,
    name: str = "",
    also: Callable[[], object] = lambda: None,
) -> Any:
    """What `what` says, once it says something; `also` is asked all the while. Fails after `timeout_s` seconds."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not (said := what()):
        also()
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {name or what}"
        pause.wait(pause_s)
    be_late()
    return said


def be_late() -> None:
    """Come late, where LAUNCHER_TEST_LATE_S asks for it."""
    if LATE_S:
        threading.Event().wait(LATE_S)
