"""Several machines of one lease as one host: it is the first of them, and speaks for the others where all count.

Files, events and artefacts are the first machine's. What has to be on every machine (code, data, the watchdog) is
sent to each by whoever sends it, from here: `nodes_of`. From the first machine to the others would be quicker on a
thin line, but that machine would need a key to them, and no key of ours lies on a rented machine.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence

from launcher.hosts.base import Host, StepStatus
from launcher.hosts.ssh import SshHost


class Gang(SshHost):
    """The first machine of a lease, with the others beside it; each has its own line and its own pinned key."""

    def __init__(self, head: SshHost, others: Sequence[SshHost]) -> None:
        self.__dict__.update(head.__dict__)
        self._head, self._others, self._turn = head, tuple(others), 0

    @property
    def nodes(self) -> tuple[SshHost, ...]:
        """The machines by rank."""
        return (self._head, *self._others)

    def answers(self, within_s: float) -> bool:
        """Whether each of them answers a request by then."""
        return all(node.answers(within_s) for node in self.nodes)

    def status(self, step: str) -> StepStatus:
        """How a step does on the first machine. While it runs one of the others is asked after, in turn; then all.

        Raises HostUnreachableError where one of them is lost: what ran on all of them has ended with it.
        """
        found = self._head.status(step)
        self._turn = (self._turn + 1) % len(self._others)
        for node in (self._others[self._turn],) if found.state == "running" else self._others:
            node.status(step)
        return found

    def signal(self, step: str, signum: int) -> None:
        """Send a signal to a step's command on the first machine, which tells the others; SIGKILL to each."""
        for node in self.nodes if signum == signals.SIGKILL else self.nodes[:1]:
            node.signal(step, signum)

    def running_steps(self) -> list[str]:
        """The steps that still run on any of them."""
        return sorted({step for node in self.nodes for step in node.running_steps()})

    def expect(self, step: str) -> None:
        """Make each of them ready for a step that somebody else starts there."""
        for node in self.nodes:
            node.expect(step)

    def clear(self, steps: Sequence[str]) -> None:
        """Remove these steps, what they made and their specs, on each of them."""
        for node in self.nodes:
            node.clear(steps)

    def wipe(self) -> None:
        """Remove the lease's folder on each of them."""
        for node in self.nodes:
            node.wipe()

    def wipe_within(self, within_s: float) -> None:
        """End every step but the watchdog and remove the lease's folder, on each; raises when not all is done."""
        for node in self.nodes:
            node.wipe_within(within_s / len(self.nodes))

    def close(self) -> None:
        """Hang up."""
        for node in self.nodes:
            node.close()


def nodes_of(host: Host) -> tuple[Host, ...]:
    """The machines of a host, the first one first: itself, where it is one."""
    return host.nodes if isinstance(host, Gang) else (host,)
