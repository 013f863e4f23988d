"""What is not public does not stay on a machine that is given back: work there is ended and removed before release.

The provider removes the disk with the machine; this is for the time until then, and for a provider that does not. It
is tried once, within seconds: a release is never kept waiting, and what could not be removed is said.
"""

from __future__ import annotations

from launcher.clock import Clock
from launcher.errors import LauncherError
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.ssh import SshHost
from launcher.ledger import Lease, LeaseState
from launcher.plan import Plan
from launcher.providers.base import Provider
from launcher.providers.release import machine_of
from launcher.runner.ending import in_words
from launcher.runner.mirror import Mirror

WITHIN_S = 15.0  # for all of it, a machine that does not answer included
_SENT_TO = (LeaseState.ARMED, LeaseState.STAGED, LeaseState.BUSY, LeaseState.DRAINED)


def is_sensitive(plan: Plan) -> bool:
    """Whether a run's data may not be left behind on a machine."""
    return plan.allowed.sensitivity != "public"


def wipe(lease: Lease, plan: Plan, provider: Provider, keys: LeaseKeys, mirror: Mirror, clock: Clock) -> None:
    """End what runs on a lease's machine and remove the run's data, settings, models and logs there; say whether.

    Does nothing for public data, and for a machine that was never sent any. Never raises for what a machine or its
    provider does.
    """
    if not is_to_be_wiped(lease, plan):
        return
    began = clock.monotonic()
    why = try_to_wipe(lease, provider, keys)
    if why is not None:
        mirror.say("wiped", lease=lease.lease, done=False, why=why)
        mirror.say("warning", message=f"{plan.allowed.sensitivity} data could not be removed from the machine before "
                                      f"its release ({why}); it goes with the machine")  # fmt: skip
        return
    mirror.say("wiped", lease=lease.lease, done=True, seconds=round(clock.monotonic() - began, 1))


def is_to_be_wiped(lease: Lease, plan: Plan) -> bool:
    """Whether a rented machine may hold data that is not to be left behind there."""
    return is_sensitive(plan) and lease.state in _SENT_TO and lease.provider != "local"


def try_to_wipe(lease: Lease, provider: Provider, keys: LeaseKeys) -> str | None:
    """Once, within WITHIN_S; None when it is done, else why it could not be, in words."""
    if not keys.private.exists():
        return "the key to it is not here"
    try:
        host = provider.connect(machine_of(lease), keys)
        if not isinstance(host, SshHost):
            raise LauncherError("nobody says where it answers")
        try:
            host.wipe_within(WITHIN_S)
        finally:
            host.close()
    except (LauncherError, OSError, ValueError) as error:
        return in_words(error)
    return None
