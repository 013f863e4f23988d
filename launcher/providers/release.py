"""Release with proof: delete, exact lookup absent, and a complete listing without it; twice, apart in time."""

from __future__ import annotations

from launcher.clock import Clock, iso
from launcher.ledger import Lease, LeaseState, Ledger
from launcher.money import ZERO
from launcher.providers.base import Machine, Presence, Provider


def release(ledger: Ledger, lease: Lease, provider: Provider, clock: Clock, apart_s: float = 0.2) -> Lease:
    """End a lease's machine and prove it; the lease ends released, or release_pending when it cannot be proven.

    Safe to repeat at any time: a lease already released is returned as it is.
    """
    if lease.state == LeaseState.RELEASED:
        return lease
    if lease.state != LeaseState.RELEASING:
        lease = ledger.move_lease(lease.lease, LeaseState.RELEASING)
    machine = _machine(lease, provider)
    if machine is not None:
        provider.destroy(machine)
    proof: list[str] = []
    while len(proof) < 2:
        presence, _ = provider.find(lease.label)
        listed = provider.listing()
        gone = presence is Presence.ABSENT and listed.complete
        if not gone or any(machine.label == lease.label for machine in listed.machines):
            return ledger.move_lease(lease.lease, LeaseState.RELEASE_PENDING, presence=presence.value)
        proof.append(f"{iso(clock.now())} absent")
        if len(proof) < 2:
            clock.sleep(apart_s)
    return ledger.move_lease(lease.lease, LeaseState.RELEASED, proof=proof)


def _machine(lease: Lease, provider: Provider) -> Machine | None:
    if lease.machine:
        return Machine(lease.machine["ref"], lease.label, ZERO)
    # The create may have worked although its answer never reached the ledger.
    return provider.find(lease.label)[1]
