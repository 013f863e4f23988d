"""Release with proof: delete, exact lookup absent, and a complete listing without it; twice, apart in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from launcher.clock import Clock, iso, parse_iso
from launcher.ledger import Lease, LeaseState, Ledger
from launcher.money import ZERO, Usd
from launcher.providers.base import Charge, CreatesAside, Machine, Presence, Provider, ProviderError, by_rate

_ABSENT = " absent"
_LONGEST_PAUSE_S = 5.0  # between two looks at a machine that is not gone yet
_ASK_AGAIN_S = 15.0  # before an accepted delete that did nothing is asked for anew


def release(ledger: Ledger, lease: Lease, provider: Provider, clock: Clock, apart_s: float | None = None, *,
            never_created: bool = False) -> Lease:  # fmt: skip
    """End a lease's machine and prove it; the lease ends released, or release_pending when it cannot be proven.

    Waits as long as this provider's deletes take (`traits.delete_s`). Safe to repeat at any time: a lease already
    released is returned as it is. `never_created`: by the provider's word, so a lag hides nothing.
    """
    if lease.state == LeaseState.RELEASED:
        return lease
    if lease.state != LeaseState.RELEASING:
        lease = ledger.move_lease(lease.lease, LeaseState.RELEASING)
    # Without a machine in the ledger the create may have worked all the same: its answer never reached us, and for a
    # while a listing may not show it.
    machine = machine_of(lease) if lease.machine else None
    settled = parse_iso(lease.created_at) + timedelta(seconds=provider.traits.listing_lag_s)

    def found(machine: Machine) -> None:  # before it is ended: it will have to be paid for
        nonlocal lease
        lease = ledger.tell_lease(lease.lease, as_held(machine))

    proof, presence = end(
        machine, lease.label, provider, clock, apart_s, not_before=None if never_created else settled, found=found
    )
    if not proof:
        return ledger.move_lease(lease.lease, LeaseState.RELEASE_PENDING, presence=presence.value)
    told: dict[str, Any] = {}
    if lease.machine is None and not never_created and _may_have_been(lease, provider):
        told["machine"] = as_held(Machine(lease.label, lease.label, lease.max_usd_per_hour, {"unseen": True}))
    lease = ledger.move_lease(lease.lease, LeaseState.RELEASED, proof=proof, **told)
    with suppress(OSError):  # what is left here costs nothing
        provider.forget(lease.label)
    return lease


def end(machine: Machine | None, label: str, provider: Provider, clock: Clock, apart_s: float | None = None, *,
        not_before: datetime | None = None,
        found: Callable[[Machine], None] | None = None) -> tuple[list[str], Presence]:  # fmt: skip
    """End a machine, in the ledger or not: (two timestamped absences, or none when it is not proven, last word).

    Where no machine is known, an absence before `not_before` proves nothing: it may not be listed yet, and a create
    that still goes on is ended first. One that is found then is told to `found` first.
    """
    apart_s = provider.traits.apart_s if apart_s is None else apart_s
    proof: list[str] = []
    pause_s, asked_at = 0.25, -_ASK_AGAIN_S
    if machine is None and isinstance(provider, CreatesAside) and provider.abandon(label):
        lag_over = clock.now() + timedelta(seconds=provider.traits.listing_lag_s)  # it may have created just now
        not_before = max(not_before or lag_over, lag_over)
    began = clock.monotonic()
    while True:
        if machine is not None and clock.monotonic() - began - asked_at >= _ASK_AGAIN_S:
            with suppress(ProviderError):  # asked for again, as long as there is patience
                provider.destroy(machine)
                asked_at = clock.monotonic() - began
        presence, seen = provider.find(label)
        if machine is None and seen is not None:
            machine = seen  # the create had worked
            if found is not None:
                found(machine)
            continue
        early = machine is None and not_before is not None and clock.now() < not_before
        if presence is Presence.ABSENT and not early and _is_listed_without(provider, label):
            proof.append(iso(clock.now()) + _ABSENT)
            if len(proof) == 2:
                return proof, presence
            clock.sleep(apart_s)
            continue
        proof = []
        if clock.monotonic() - began >= provider.traits.delete_s and not early:
            return [], presence
        clock.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _may_have_been(lease: Lease, provider: Provider) -> bool:
    return isinstance(provider, CreatesAside) and provider.may_have_created(lease.label)


def _is_listed_without(provider: Provider, label: str) -> bool:
    try:
        listed = provider.listing()
    except ProviderError:
        return False
    return listed.complete and all(machine.label != label for machine in listed.machines)


def as_held(machine: Machine) -> dict[str, Any]:
    """A machine as the ledger keeps it."""
    return {"ref": machine.ref, "usd_per_hour": str(machine.usd_per_hour), "facts": dict(machine.facts)}


def machine_of(lease: Lease) -> Machine:
    """A lease's machine as the ledger knows it, at the provider's own rate where it said one."""
    held = lease.machine or {}
    rate = Usd(held["usd_per_hour"]) if "usd_per_hour" in held else lease.max_usd_per_hour
    return Machine(str(held.get("ref", lease.label)), lease.label, rate, dict(held.get("facts") or {}))


def charge(ledger: Ledger, lease: Lease, provider: Provider) -> Usd:
    """Record what a released lease has cost, by its provider's word; the amount (USD). Idempotent.

    From its creation (as the provider says it, else as we asked for it) to the first proof that it was gone. One that
    may have come and gone unseen is booked at the approved rate for all that time, at most what is reserved: more
    than its bill, never less.
    """
    if lease.machine is None:
        return ledger.charge(lease, ZERO, "never created")
    facts = lease.machine.get("facts", {})
    ended = facts.get("ended_at")  # known before it could be written here
    until = str(ended or (lease.proof[0].partition(" ")[0] if lease.proof else lease.updated_at))
    if facts.get("unseen"):
        step_s, began = provider.traits.billing_step_s, parse_iso(lease.created_at)
        most = by_rate(machine_of(lease), began, parse_iso(until), step_s)
        left = lease.reserved_usd - ledger.spent(lease.run)
        found = Charge(max(ZERO, min(most.amount, left)), "never seen: at most")
    else:
        found = cost_until(lease, provider, until)
    return ledger.charge(lease, found.amount, found.source)


def cost_until(lease: Lease, provider: Provider, until: str) -> Charge:
    """What a lease's machine has cost its run until then (ISO 8601), by its provider's word."""
    machine = machine_of(lease)
    facts = _by_our_clock(lease, machine.facts)
    if isinstance(facts.get("nodes"), list):  # each machine of several bills from a moment of its own
        facts["nodes"] = [_by_our_clock(lease, node) for node in facts["nodes"]]
    return provider.charged(replace(machine, facts=facts), billed_since(lease), parse_iso(until))


def billed_since(lease: Lease) -> datetime:
    """From when a lease's machine bills, by this computer's clock, which may be an hour off its provider's."""
    told = _by_our_clock(lease, (lease.machine or {}).get("facts", {})).get("billed_from")
    return parse_iso(str(told or lease.created_at))


def _by_our_clock(lease: Lease, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A machine's facts, with the moment from which it bills by this computer's clock.

    How far off it is tell the two deadlines: the ledger's is by our clock, the label's by the provider's. Whose clock
    a moment of the machine was read from is not kept: it is the one by which that came soonest after our intent.
    """
    from launcher.reaper.labels import Label

    began, label = parse_iso(lease.created_at), Label.read(lease.label)
    if not facts.get("billed_from"):
        return dict(facts)
    since = parse_iso(str(facts["billed_from"]))
    ahead = parse_iso(lease.deadline) - label.ends if label else timedelta(0)
    return {**facts, "billed_from": iso(min((since, since + ahead), key=lambda moment: abs(moment - began)))}
