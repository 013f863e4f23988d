"""Where a lease lives on a rented machine: its folder, and the recipes' Python that setup makes there."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from launcher.clock import Clock
from launcher.errors import BadInputError
from launcher.hosts.gang import Gang
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.link import Patience
from launcher.hosts.ssh import SshHost

LINE_PATIENCE = "LAUNCHER_LINE_PATIENCE_S"
ENVIRONMENT = "parakeet-env"  # in the home there: what the `setup` of sky/*.yaml makes, or links to


def rented_host(address: Address, keys: LeaseKeys, label: str, clock: Clock,
                patience: Patience | None = None) -> SshHost:  # fmt: skip
    """The machine at `address` as a host; the lease's folder is ~/parakeet/LABEL."""
    home = home_of(address.user)
    python = f"{home}/{ENVIRONMENT}/bin/python"
    patience = patience or Patience(total_s=line_patience_s())
    return SshHost(address, keys, f"{home}/parakeet/{label}", python, clock, patience=patience)


def rented_hosts(addresses: Sequence[Address], keys: LeaseKeys, label: str, clock: Clock) -> SshHost:
    """The machines of one lease, the first of them first: one host where there is one, else a gang."""
    head = rented_host(addresses[0], keys, label, clock)
    if len(addresses) == 1:
        return head
    others = [rented_host(one, keys.of_node(n), label, clock) for n, one in enumerate(addresses[1:], start=1)]
    return Gang(head, others)


def line_patience_s() -> float:
    """Seconds without an answer after which a machine counts as lost; $LAUNCHER_LINE_PATIENCE_S, else 300."""
    told = os.environ.get(LINE_PATIENCE)
    if not told:
        return Patience.total_s
    try:
        seconds = float(told)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 86_400:
        raise BadInputError(
            "is no patience with a line.", key=LINE_PATIENCE, value=told, fix="Give seconds, such as 300."
        )
    return seconds


def home_of(user: str) -> str:
    """The home folder of a user of a Linux machine."""
    return "/root" if user == "root" else f"/home/{user}"
