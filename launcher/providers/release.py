"""Release with proof: delete, exact lookup absent, and a complete listing without it; twice, apart in time."""

from __future__ import annotations

from launcher.clock import Clock, iso, parse_iso
from launcher.ledger import Lease, LeaseState, Ledger
from launcher.money import Usd
from launcher.providers.base import Machine, Presence, Provider


def release(ledger: Ledger, lease: Lease, provider: Provider, clock: Clock, apart_s: float = 0.2) -> Lease:
    """End a lease's machine and prove it; the lease ends released, or release_pending when it cannot be proven.

    Safe to repeat at any time: a lease already released is returned as it is.
    """
    if lease.state == LeaseState.RELEASED:
        return lease
    if lease.state != LeaseState.RELEASING:
        lease = ledger.move_lease(lease.lease, LeaseState.RELEASING)
    # Without a machine in the ledger the create may have worked all the same: its answer never reached us.
    machine = machine_of(lease) if lease.machine else provider.find(lease.label)[1]
    proof, presence = end(machine, lease.label, provider, clock, apart_s)
    if not proof:
        return ledger.move_lease(lease.lease, LeaseState.RELEASE_PENDING, presence=presence.value)
    return ledger.move_lease(lease.lease, LeaseState.RELEASED, proof=proof)


def end(machine: Machine | None, label: str, provider: Provider, clock: Clock,
        apart_s: float = 0.2) -> tuple[list[str], Presence]:  # fmt: skip
    """End a machine, in the ledger or not: (two timestamped absences, or none when it is not proven, last word)."""
    if machine is not None:
        provider.destroy(machine)
    proof: list[str] = []
    while True:
        presence, _ = provider.find(label)
        listed = provider.listing()
        gone = presence is Presence.ABSENT and listed.complete
        if not gone or any(machine.label == label for machine in listed.machines):
            return [], presence
        proof.append(f"{iso(clock.now())} absent")
        if len(proof) == 2:
            return proof, presence
        clock.sleep(apart_s)


def machine_of(lease: Lease) -> Machine:
    """A lease's machine as the ledger knows it, at the provider's own rate where it said one."""
    held = lease.machine or {}
    rate = Usd(held["usd_per_hour"]) if "usd_per_hour" in held else lease.max_usd_per_hour
    return Machine(str(held.get("ref", lease.label)), lease.label, rate)


def charge(ledger: Ledger, lease: Lease, provider: Provider) -> Usd:
    """Record what a released lease has cost, by its provider's word; the amount (USD). Idempotent."""
    found = provider.charged(machine_of(lease), parse_iso(lease.created_at), parse_iso(lease.updated_at))
    ledger.charge(lease, found.amount, found.source)
    return found.amount
