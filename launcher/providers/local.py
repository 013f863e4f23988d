"""This machine as a provider: at price 0, through the same create, find, destroy and proof as any other."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from launcher.clock import Clock
from launcher.environment import recipe_python
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.local import LocalHost
from launcher.money import ZERO
from launcher.providers.base import Charge, Intent, Listing, Machine, Presence
from launcher.providers.traits import LOCAL
from recipes.contract import write_json

NAME = "lease.json"


class LocalProvider:
    """Leases are folders under the launcher's home; releasing one ends its processes and removes it."""

    name = "local"
    traits = LOCAL

    def __init__(self, home: Home, clock: Clock, *, boxes: Path | None = None,
                 python: Path | Callable[[], Path] = recipe_python) -> None:  # fmt: skip
        """`boxes` and `python` are others than the launcher's own where a test or another provider has its own."""
        self._boxes, self._python, self._clock = boxes or home.boxes, python, clock

    def unusable(self) -> str | None:
        """Never: it is this machine."""
        return None

    def create(self, intent: Intent) -> Machine:
        """Make the lease's folder (nothing here bills)."""
        machine = Machine(intent.label, intent.label, ZERO, {"deadline": intent.deadline})
        write_json(self._boxes / intent.label / NAME, {"label": intent.label, "deadline": intent.deadline})
        return machine

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """Present while the folder or any of its processes is there."""
        box = self._boxes / label
        if not box.exists() and not LocalHost(_aside(box), self._python, self._clock).running_steps():
            return Presence.ABSENT, None
        return Presence.PRESENT, Machine(label, label, ZERO)

    def listing(self) -> Listing:
        """All leases on this machine."""
        if not self._boxes.is_dir():
            return Listing((), complete=True)
        names = sorted(box.name for box in self._boxes.iterdir() if not box.name.startswith("."))
        return Listing(tuple(Machine(name, name, ZERO) for name in names), complete=True)

    def connect(self, machine: Machine, keys: LeaseKeys) -> LocalHost:
        """The lease's folder as a host; nobody needs a key to this machine."""
        return LocalHost(self._boxes / machine.ref, self._python, self._clock)

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """Nothing to arm: this machine costs nothing."""
        return self.traits.released_by

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Nothing, ever."""
        return Charge(ZERO, "free: this machine is yours")

    def destroy(self, machine: Machine) -> None:
        """End the lease's processes (TERM, then KILL) and remove its folder.

        Put aside first and looked at once more: a step may be starting, which then finds its folder gone or is seen.
        """
        box = self._boxes / machine.ref
        for folder in (_aside(box), box):  # an earlier attempt, killed here, may have put it aside
            if not self._end_steps(folder):
                return  # the proof will find it present, and the lease stays release_pending
        _remove(_aside(box))
        if box.exists():
            box.rename(_aside(box))
            if self._end_steps(_aside(box)):
                _remove(_aside(box))

    def _end_steps(self, folder: Path) -> bool:
        """Whether none runs in there any more."""
        host = LocalHost(folder, self._python, self._clock)
        for signum, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
            for step in host.running_steps():
                host.signal(step, signum)
            ends = self._clock.monotonic() + patience_s
            while host.running_steps() and self._clock.monotonic() < ends:
                self._clock.sleep(0.05)
        return not host.running_steps()

    def forget(self, label: str) -> None:
        """Nothing of a lease is kept outside its folder."""


def _aside(box: Path) -> Path:
    return box.with_name(f".gone-{box.name}")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
