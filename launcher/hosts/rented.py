"""Where a lease lives on a rented machine: its folder, and the recipes' Python that setup makes there."""

from __future__ import annotations

from launcher.clock import Clock
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.link import Patience
from launcher.hosts.ssh import SshHost

ENVIRONMENT = "parakeet-env"  # in the home there: what the `setup` of sky/*.yaml makes, or links to


def rented_host(address: Address, keys: LeaseKeys, label: str, clock: Clock,
                patience: Patience | None = None) -> SshHost:  # fmt: skip
    """The machine at `address` as a host; the lease's folder is ~/parakeet/LABEL."""
    home = home_of(address.user)
    python = f"{home}/{ENVIRONMENT}/bin/python"
    return SshHost(address, keys, f"{home}/parakeet/{label}", python, clock, patience=patience)


def home_of(user: str) -> str:
    """The home folder of a user of a Linux machine."""
    return "/root" if user == "root" else f"/home/{user}"
