"""SkyPilot's autostop as a deadline: it is a clock, which whatever SkyPilot is asked for a cluster starts again."""

from __future__ import annotations

from datetime import datetime

from launcher.clock import Clock, iso, parse_iso
from launcher.providers.base import ProviderError
from launcher.providers.skypilot.lodging import Lodging
from launcher.providers.skypilot.server import Server

ERRAND_S = 120.0
#: Autostop counts from when SkyPilot has set the machine up. That much later than the request is allowed for at once;
#: an end that would then come after the deadline, or so long before it, is set anew.
SET_UP_S, EARLY_S = 90.0, 240.0


def minutes_until(deadline: datetime, clock: Clock, less_s: float = 0.0) -> int:
    """Whole minutes for autostop, which fires up to one minute after them: never past the deadline."""
    left_s = (deadline - clock.now()).total_seconds() - less_s
    return max(1, int(left_s // 60) - 1)


def is_armed(lodging: Lodging, deadline: datetime) -> bool:
    """Whether the end that was set with the launch comes in time, and not much too early."""
    held = lodging.facts()
    if not held.get("up") or not held.get("minutes"):
        return False
    left_s = (deadline - parse_iso(held["up"])).total_seconds() - 60 * held["minutes"]
    return bool(60 <= left_s <= EARLY_S)


def rearm(lodging: Lodging, server: Server, deadline: datetime, clock: Clock) -> None:
    """Set the end anew, with the minutes that are left; raises ProviderError where SkyPilot does not."""
    server.start()
    minutes = minutes_until(deadline, clock)
    lodging.note(minutes=None)
    answer = server.send("autostop", ERRAND_S, cluster=lodging.label, minutes=minutes)
    if "error" in answer:
        raise ProviderError(f"SkyPilot could not arm the machine's end: {answer['words'][:300]}")
    lodging.note(minutes=minutes, up=iso(clock.now()))
