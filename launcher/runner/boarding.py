"""Getting a run its machine: intent, create or adopt, the rate check, its first answer, arming; else the next one.

Every effect is in the ledger before it happens, so that a new runner goes on where a killed one was. What is not to
be had, or is not what was approved, is released with proof, and the next candidate inside the approval is tried.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from launcher.clock import Clock, iso, parse_iso
from launcher.errors import ExitCode, LauncherError, LedgerError
from launcher.failpoints import effect
from launcher.home import Home
from launcher.hosts.base import Host, HostError, HostUnreachableError
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.ssh import SshHost
from launcher.ledger import Lease, LeaseState, Ledger, RunState
from launcher.money import ZERO
from launcher.plan import Candidate, Plan
from launcher.providers.base import (
    CreateRefusedError,
    Intent,
    Machine,
    MachineFailedError,
    Presence,
    Provider,
    ProviderError,
    each_of,
)
from launcher.providers.moment import moment_at
from launcher.providers.registry import provider_named
from launcher.providers.release import as_held, charge, machine_of, release
from launcher.runner.ending import Ending, failed, in_words
from launcher.runner.interrupts import Interrupts
from launcher.runner.mirror import Mirror
from launcher.runner.wiping import wipe

MOST_LEASES = 6  # tried for one run, those that were sold out included
LOOK_S = 2.0  # between two questions to a provider about a machine that boots
LEAST_DISK_GB = 20
_LEFT = (LeaseState.RELEASING, LeaseState.RELEASE_PENDING, LeaseState.RELEASED)


@dataclass(frozen=True)
class Aboard:
    """A machine that answers, is armed, and is this run's."""

    lease: Lease
    candidate: Candidate
    provider: Provider
    host: Host

    @property
    def work_ends(self) -> datetime:
        """When the work must be through: time to collect, and time of the runs that are to follow, is kept."""
        ceiling = self.candidate.ceiling
        return parse_iso(self.lease.deadline) - timedelta(seconds=ceiling.collect_s + ceiling.after_s)


class _NotThis(Exception):  # noqa: N818
    """This machine is not to be had, or not what was approved: `ending` where there is no other.

    `refused`: by the provider's own word nothing was created.
    """

    def __init__(self, ending: Ending, *, refused: bool = False) -> None:
        self.ending, self.refused = ending, refused
        super().__init__(ending.reason)


class Boarding:
    """The leases of one run, one after another."""

    def __init__(self, home: Home, ledger: Ledger, run_id: str, plan: Plan, mirror: Mirror, interrupts: Interrupts,
                 clock: Clock) -> None:  # fmt: skip
        self._home, self._ledger, self._run_id, self._plan = home, ledger, run_id, plan
        self._mirror, self._interrupts, self._clock = mirror, interrupts, clock
        self._dir = home.run_dir(run_id)
        self._fresh: set[str] = set()  # leases that this very process has meant to create

    def aboard(self) -> Aboard:
        """The run's machine: the one it has, else the first that can be had. Can leave something billing.

        Raises Ending when there is none inside the approval, with what the last one's trouble was.
        """
        self._finish_leaving()
        while True:
            live = self.live()
            lease = live[-1] if live else self._intend(self._next())
            try:
                return self._board(lease)
            except _NotThis as not_this:
                self.leave(lease, not_this.ending, never_created=not_this.refused)

    def _finish_leaving(self) -> None:
        """Release and charge what an earlier runner was leaving when it died: what is left to spend stands on it."""
        left = [lease for lease in self._ledger.leases(self._run_id) if lease.state in _LEFT]
        if len(self._ledger.charges(self._run_id)) == len(left):
            return
        for lease in left:
            if not self.end(lease):
                raise failed(f"{lease.provider} did not confirm that {lease.label} is released")

    def live(self) -> list[Lease]:
        """The leases that are not released."""
        return [lease for lease in self._ledger.leases(self._run_id) if lease.state is not LeaseState.RELEASED]

    def leave(self, lease: Lease, why: Ending, *, never_created: bool = False) -> None:
        """Release a lease with proof, and see that another one may be tried; raises Ending when none may."""
        self._mirror.say("warning", message=f"{lease.provider} {lease.offer_id}: {why.reason}")
        if not self.end(lease, never_created=never_created) or self._find_next() is None:
            raise why

    def end(self, lease: Lease, *, never_created: bool = False) -> bool:
        """Release a lease with proof and charge it; whether nothing of it is left."""
        was = self._ledger.leases(self._run_id)
        lease = next(held for held in was if held.lease == lease.lease)
        provider = self.provider_of(lease)
        wipe(lease, self._plan, provider, LeaseKeys(self._dir / "keys" / lease.lease), self._mirror, self._clock)
        released = release(self._ledger, lease, provider, self._clock, never_created=never_created)
        self._mirror.say("lease", lease=lease.lease, state=released.state.value, proof=released.proof or [])
        if released.state is not LeaseState.RELEASED:
            return False
        charge(self._ledger, released, provider)
        keys = LeaseKeys(self._dir / "keys" / lease.lease)
        with suppress(OSError):
            keys.destroy()
        return True

    def provider_of(self, lease: Lease) -> Provider:
        """Whoever rents this lease's machine."""
        return provider_named(lease.provider, self._home, self._clock, lease.via)

    # -- which one ----------------------------------------------------------------------------------------

    def _next(self) -> Candidate:
        found = self._find_next()
        if found is None:
            raise failed("no machine inside the approval is left to try")
        return found

    def _find_next(self) -> Candidate | None:
        """The best candidate inside the approval that was not tried yet and that what is left of the money covers."""
        tried = self._ledger.leases(self._run_id)
        if len(tried) >= MOST_LEASES:
            return None
        taken = {(lease.provider, lease.offer_id) for lease in tried}
        held = self._ledger.reservation(self._run_id)
        most = self._plan.ceiling_usd if held is None else min(self._plan.ceiling_usd, held.amount_usd)
        left = most - self._ledger.spent(self._run_id)
        for candidate in self._approved():
            offer, ceiling = candidate.offer, candidate.ceiling
            if (offer.provider, offer.offer_id) in taken:
                continue
            if ceiling.usd - ceiling.retry_usd <= left:  # the machine itself; the part for another one is not needed
                return candidate
        return None

    def _approved(self) -> Iterator[Candidate]:
        if self._plan.is_free or self._plan.allowed.may_hold(self._plan.choice.offer):
            yield self._plan.choice
        if self._plan.is_free:
            return
        for candidate in self._plan.candidates:
            other = candidate is not self._plan.choice and not candidate.is_local and candidate.fits
            if other and self._plan.allowed.covers_instead(candidate.offer):
                yield candidate

    def candidate_of(self, lease: Lease) -> Candidate:
        """The candidate of the plan that a lease is of."""
        for candidate in self._plan.candidates:
            if (candidate.offer.provider, candidate.offer.offer_id) == (lease.provider, lease.offer_id):
                return candidate
        return self._plan.choice

    def _intend(self, candidate: Candidate) -> Lease:
        """Invariant 1: the intent is committed before anything is created."""
        offer, ceiling = candidate.offer, candidate.ceiling
        long = timedelta(hours=ceiling.deadline_h)
        ends, there = self._clock.now() + long, moment_at(offer.provider, self._clock)
        lease = self._ledger.intend_lease(
            self._run_id, provider=offer.provider, account="here", offer_id=offer.offer_id, via=offer.via,
            max_usd_per_hour=ceiling.max_usd_per_hour, reserved=self._plan.ceiling_usd, deadline=iso(ends),
            label_ends=iso(there + long) if there else "",  # whoever reads the label goes by the provider's clock
        )  # fmt: skip
        self._fresh.add(lease.lease)
        return lease

    # -- getting aboard -----------------------------------------------------------------------------------

    def _board(self, lease: Lease) -> Aboard:
        candidate, provider = self.candidate_of(lease), self.provider_of(lease)
        keys = LeaseKeys(self._dir / "keys" / lease.lease)
        if provider.name != "local":
            keys = LeaseKeys.create(keys.folder, lease.label)
        if lease.state in (LeaseState.INTENDED, LeaseState.UNKNOWN):
            lease = self._created(lease, candidate, provider, keys)
        self._check_rate(lease)
        answers_by = parse_iso(lease.created_at) + timedelta(seconds=candidate.ceiling.provision_s)
        try:
            with self._interrupts.cutting_short():
                if lease.state is not LeaseState.CREATED:  # it has answered before: its line may only be cut now
                    host = self._again(lease, provider, keys)
                else:
                    lease, host = self._answering(lease, provider, keys, answers_by.timestamp())
            if lease.state is LeaseState.CREATED:
                layers = provider.arm(machine_of(lease), host, parse_iso(lease.deadline))
                lease = self._ledger.move_lease(
                    lease.lease, LeaseState.ARMED, deadline=lease.deadline, layers=list(layers)
                )
                self._mirror.say("armed", provider=lease.provider, layers=list(layers), deadline=lease.deadline)
        except (MachineFailedError, HostUnreachableError, HostError, ProviderError) as error:
            raise _NotThis(failed(in_words(error))) from error
        return Aboard(lease, candidate, provider, host)

    def _created(self, lease: Lease, candidate: Candidate, provider: Provider, keys: LeaseKeys) -> Lease:
        """Adopt the machine that carries this label, or create it. Can leave something billing.

        A lease that an earlier runner meant to create may have been created, and not be listed yet: it is looked for
        until it must have been.
        """
        machine = self._look_for(lease, provider)
        if machine is None:
            if lease.state is LeaseState.UNKNOWN or self._is_stale(lease, candidate):
                raise _NotThis(failed(f"{lease.provider} never showed the machine that was asked for"))
            self._interrupts.refuse_now()
            self._mirror.say("phase", name="renting")
            machine = self._create(lease, candidate, provider, keys)
        return self._ledger.move_lease(lease.lease, LeaseState.CREATED, machine=as_held(machine))

    def _create(self, lease: Lease, candidate: Candidate, provider: Provider, keys: LeaseKeys) -> Machine:
        from launcher.remote import image_of

        intent = Intent(
            lease.label, candidate.offer, lease.max_usd_per_hour, lease.deadline, lease.reserved_usd,
            disk_gb=max(LEAST_DISK_GB, math.ceil(candidate.estimate.disk_gb)),
            image="" if provider.name == "local" else image_of(self._plan.recipe), keys=keys,
        )  # fmt: skip
        try:
            return provider.create(intent)
        except CreateRefusedError as error:
            raise _NotThis(failed(in_words(error)), refused=True) from error
        except LedgerError:
            raise
        except (LauncherError, OSError) as error:  # whether it was created is not known: never asked for again
            lease = self._ledger.move_lease(lease.lease, LeaseState.UNKNOWN, why=in_words(error))
            self._mirror.say("warning", message=f"{in_words(error)}: looking for the machine by its label")
            machine = self._look_for(lease, provider)
            if machine is None:
                raise _NotThis(failed(in_words(error))) from error
            return machine

    def _look_for(self, lease: Lease, provider: Provider) -> Machine | None:
        """The machine with this label; None once it must have been listed by now and is not.

        Raises _NotThis when the provider does not say anything of it for as long as a machine may take to answer.
        """
        asked = parse_iso(lease.updated_at if lease.state is LeaseState.UNKNOWN else lease.created_at)
        if lease.state is LeaseState.INTENDED and lease.lease in self._fresh:
            return None  # nobody can have created it yet: no provider has to prove that
        patience = timedelta(seconds=provider.traits.listing_lag_s)
        gives_up = self._clock.now() + max(patience, timedelta(seconds=provider.traits.provision_timeout_s / 10))
        while True:
            presence, machine = provider.find(lease.label)
            if machine is not None:
                return machine
            now = self._clock.now()
            if presence is Presence.ABSENT and now >= asked + patience:
                return None
            if presence is Presence.UNKNOWN and now >= gives_up:
                raise _NotThis(failed(f"{lease.provider} does not say what {lease.label} is"))
            self._interrupts.refuse_now()
            self._clock.sleep(LOOK_S)

    def _is_stale(self, lease: Lease, candidate: Candidate) -> bool:
        """Whether so much of its time is gone that the work would not fit before its deadline any more."""
        if candidate.offer.usd_per_hour == ZERO:
            return False
        gone = (self._clock.now() - parse_iso(lease.created_at)).total_seconds()
        return gone > candidate.ceiling.provision_s / 2

    def _check_rate(self, lease: Lease) -> None:
        """Invariant 7: the provider's own word, at renting."""
        held = machine_of(lease)
        if held.usd_per_hour > lease.max_usd_per_hour:
            words = f"{lease.provider} rents {lease.offer_id} at ${held.usd_per_hour}/h, not at the "
            approved = f"${lease.max_usd_per_hour}/h approved; released at once"
            raise _NotThis(Ending(RunState.REFUSED, ExitCode.REFUSED, words + approved))

    def _answering(self, lease: Lease, provider: Provider, keys: LeaseKeys, answers_by: float) -> tuple[Lease, Host]:
        """Wait until the machine answers, and no longer than was approved for that."""
        while True:
            presence, machine = provider.find(lease.label)
            fewer = machine is not None and len(each_of(machine)) < len(each_of(machine_of(lease)))
            if machine is not None and as_held(machine) != lease.machine and not fewer:  # one that is gone has billed
                lease = self._ledger.tell_lease(lease.lease, as_held(machine))
                self._check_rate(lease)
            host = provider.connect(machine_of(lease), keys)
            if host is not None and _answers(host):
                return lease, host
            if self._clock.now().timestamp() >= answers_by:
                seconds = self.candidate_of(lease).ceiling.provision_s
                state = "it does not exist" if presence is Presence.ABSENT else "it never answered"
                raise _NotThis(failed(f"{state} within {seconds:.0f} s"))
            self._clock.sleep(LOOK_S)

    def _again(self, lease: Lease, provider: Provider, keys: LeaseKeys) -> Host:
        """A machine that has answered before."""
        host = provider.connect(machine_of(lease), keys)
        if host is None:
            raise HostUnreachableError(f"{lease.provider} does not say where {lease.label} answers")
        host.running_steps()
        return host


def _answers(host: Host) -> bool:
    """Whether it can be asked things: an sshd first, in seconds: a machine that boots keeps no one waiting."""
    if not isinstance(host, SshHost):
        return True
    with effect("host.knock"), suppress(OSError), closing(_line_to(host)) as line:
        line.settimeout(5)
        return line.recv(4) == b"SSH-" and host.answers(within_s=20)
    return False


def _line_to(host: SshHost) -> socket.socket:
    return socket.create_connection((host.address.host, host.address.port), 3)
