"""A launcher that rents on one ground: its ledger, its provider, and the simulated provider's own bill."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from grounds import Ground

from launcher.clock import SystemClock, iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.ledger import Lease, LeaseState, Ledger
from launcher.offers.offer import Offer
from launcher.providers import CreateRefusedError, Intent, Machine, Provider, ProviderError
from launcher.providers.release import as_held, machine_of, release
from launcher.providers.runpod_api import label_of
from tests.cloud.conftest import Standing
from tests.patience import until

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
    elsewhere: Home  # of another computer, which has rented nothing
    idle: list[Lease] = field(default_factory=list)  # on an engine's ground: what earlier rows left as they found it
    clock: SystemClock = field(default_factory=SystemClock)

    def another(self, home: Home | None = None) -> Any:
        """The provider in another process, which remembers nothing."""
        return hurried(self.ground.make(home or self.home, self.clock), self.ground)

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
        """A machine; of the second offer where that is asked for by name."""
        idle = next((one for one in self.idle if offer is None or one.offer_id == offer.offer_id), None)
        if idle is not None:
            self.idle.remove(idle)
            return idle
        lease = self.intend(offer)
        return self.created(lease, self.ask(lease))

    def created(self, lease: Lease, machine: Machine) -> Lease:
        return self.ledger.move_lease(lease.lease, LeaseState.CREATED, machine=as_held(machine))

    @contextmanager
    def renting(self) -> Iterator[Lease]:
        """A lease whose machine has just been created, though an engine's create may not have answered yet."""
        if not self.ground.engine:
            yield self.rent()
            return
        lease, before = self.intend(), len(self.cloud.events("created"))
        with ThreadPoolExecutor(1) as aside:
            asked = aside.submit(self.ask, lease)
            until(lambda: asked.done() or len(self.cloud.events("created")) > before, self.ground.patience_s)
            yield lease
            self.created(lease, asked.result())

    def lose(self, lease: Lease, fault: str = "error_after_create") -> None:
        """Have its machine created, and the answer lost."""
        self.fault(fault)
        if self.ground.engine:
            self.fault("delete_refused")  # else it ends by itself what it believes not to have created
            assert self.ask(lease).label == lease.label  # it has looked for it; the ledger is not told
            return
        with pytest.raises(ProviderError) as raised:
            self.ask(lease)
        assert not isinstance(raised.value, CreateRefusedError)

    def enter(self, lease: Lease, provider: Provider | None = None) -> Host:
        """The lease's machine, once it answers."""
        asked, patience_s, pause_s = provider or self.provider, self.ground.patience_s, 0.05
        if self.ground.engine:
            pause_s = 0.5  # each look is a question to its server, which has a machine to set up
        found: Host = until(lambda: asked.connect(machine_of(lease), self.keys(lease)), patience_s, pause_s)
        until(lambda: found.status("nothing").state == "absent", patience_s, pause_s)
        return found

    def release(self, lease: Lease, provider: Provider | None = None) -> Lease:
        return release(self.ledger, lease, provider or self.provider, self.clock)

    def billing(self) -> set[str]:
        """The labels of what the simulated provider bills now, but for what waits for other rows: the oracle."""
        rows = self.cloud.bill()["machines"]
        names = {row["label"] for row in rows if row["bills"] and row["provider"] == self.ground.cloud}
        return {label_of(name) for name in names} - {lease.label for lease in self.idle}

    def fault(self, name: str, **how: Any) -> None:
        self.cloud.fault(name, provider=self.ground.cloud, **how)

    def inside(self, lease: Lease, script: str, stdin: str = "") -> str:
        """What a shell there says, by the lease's own key and pinned host key."""
        folder = self.keys(lease).folder
        done = subprocess.run(["ssh", "-F", "ssh_config", "lease", script], cwd=folder, input=stdin,
                              capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return done.stdout


def hurried(provider: Any, ground: Ground) -> Any:
    """The same provider with less patience than a real cloud needs."""
    for one in filter(None, (provider, getattr(provider, "_witness", None))):
        one.traits = replace(one.traits, listing_lag_s=ground.listing_lag_s, delete_s=ground.delete_s, apart_s=0.2)
        one.create_s = 2.0 * min(ground.slow, 3.0)
    return provider
