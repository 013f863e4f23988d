"""A launcher that rents on one ground: its ledger, its provider, and the simulated provider's own bill."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from grounds import Ground

from launcher.clock import SystemClock, iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.ledger import Lease, LeaseState, Ledger
from launcher.offers.offer import Offer
from launcher.providers import Intent, Machine, Provider
from launcher.providers.release import as_held, machine_of, release
from tests.cloud.conftest import Standing, until

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-0123456789", "HF_TOKEN": "hf_planted0123456789",
    "LAMBDA_API_KEY": "planted-lambda-0123456789",
}  # fmt: skip


@dataclass
class Renting:
    """A launcher that rents on one ground."""

    cloud: Standing
    ground: Ground
    home: Home
    provider: Any
    ledger: Ledger
    clock: SystemClock = field(default_factory=SystemClock)

    def another(self, home: Home | None = None) -> Any:
        """The provider in another process, which remembers nothing."""
        return hurried(self.ground.make(home or self.home, self.clock), self.ground.slow)

    def intend(self, offer: Offer | None = None) -> Lease:
        offer = offer or self.ground.offers[0]
        run, _ = self.ledger.create_run(f"key-{random.random()}", {}, "d")
        return self.ledger.intend_lease(
            run.run, provider=self.ground.cloud, account="", offer_id=offer.offer_id,
            max_usd_per_hour=offer.usd_per_hour, reserved=offer.usd_per_hour,
            deadline=iso(self.clock.now() + timedelta(hours=1)),
        )  # fmt: skip

    def keys(self, lease: Lease) -> LeaseKeys:
        return LeaseKeys.create(self.home.root / "keys" / lease.label)

    def ask(self, lease: Lease) -> Machine:
        """The provider's create, as the runner calls it."""
        offer = next(one for one in self.ground.offers if one.offer_id == lease.offer_id)
        keys = self.keys(lease)
        found: Machine = self.provider.create(
            Intent(lease.label, offer, lease.max_usd_per_hour, lease.deadline, disk_gb=20, keys=keys)
        )
        return found

    def rent(self, offer: Offer | None = None) -> Lease:
        lease = self.intend(offer)
        machine = self.ask(lease)
        return self.ledger.move_lease(lease.lease, LeaseState.CREATED, machine=as_held(machine))

    def enter(self, lease: Lease, provider: Provider | None = None) -> Host:
        """The lease's machine, once it answers."""
        found: Host = until(lambda: (provider or self.provider).connect(machine_of(lease), self.keys(lease)))
        until(lambda: found.status("nothing").state == "absent")
        return found

    def release(self, lease: Lease, provider: Provider | None = None) -> Lease:
        return release(self.ledger, lease, provider or self.provider, self.clock)

    def billing(self) -> set[str]:
        """The labels of what the simulated provider bills now: the oracle."""
        rows = self.cloud.bill()["machines"]
        return {row["label"] for row in rows if row["bills"] and row["provider"] == self.ground.cloud}

    def fault(self, name: str, **how: Any) -> None:
        self.cloud.fault(name, provider=self.ground.cloud, **how)

    def inside(self, lease: Lease, script: str, stdin: str = "") -> str:
        """What a shell there says, by the lease's own key and pinned host key."""
        folder = self.keys(lease).folder
        done = subprocess.run(["ssh", "-F", "ssh_config", "lease", script], cwd=folder, input=stdin,
                              capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return done.stdout


def hurried(provider: Any, slow: float = 1.0) -> Any:
    """The same provider with less patience than a real cloud needs."""
    provider.traits = replace(provider.traits, listing_lag_s=2.0 * slow, delete_s=2.5 * slow, apart_s=0.2)
    provider.create_s = 2.0 * min(slow, 3.0)
    return provider
