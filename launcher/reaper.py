"""Ledger against runners and providers: frees what dead launchers hold, releases what is ours and should be gone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from launcher.clock import Clock, parse_iso
from launcher.errors import ExitCode, LauncherError, LedgerError
from launcher.home import Home
from launcher.ledger import Lease, LeaseState, Ledger, Run, RunState
from launcher.money import ZERO
from launcher.providers.base import Machine, Provider
from launcher.providers.registry import provider_named, rentable
from launcher.providers.release import charge, end, release
from launcher.runner.control import is_running, runner_lock

GRACE = timedelta(minutes=2)  # between a run's last word and its runner's lock, for a launcher that is still starting
MARGIN = timedelta(minutes=10)  # beyond a deadline that another machine's clock has set
MOST = 10  # machines released at once: a mistake of ours does not end everything
_LABEL = re.compile(r"pl-(?P<owner>.+)-(?P<run>[0-9a-f]{6})-[0-9a-f]{8}-(?P<ends>\d{8}T\d{6})")

Fact = dict[str, Any]


@dataclass
class Reaped:
    """What `launcher reap` saw and did; each is a list of facts, ready for JSON."""

    seen: list[Fact] = field(default_factory=list)  # ours, and left alone
    released: list[Fact] = field(default_factory=list)
    pending: list[Fact] = field(default_factory=list)  # should be gone, and may still bill
    unknown: list[Fact] = field(default_factory=list)  # a provider whose answer proves nothing
    freed: list[Fact] = field(default_factory=list)  # runs without a machine whose launcher died


def reap_quietly(home: Home, ledger: Ledger, clock: Clock) -> list[Fact]:
    """Free what dead launchers hold in the ledger; what was freed: [{run, why, budget, reserved_usd}].

    Asks no provider and touches no machine: cheap enough for the start of every verb that rents.
    """
    freed = []
    for run in ledger.unfinished():
        why = _free(home, ledger, run, clock)
        if why is not None:
            held = ledger.reservation(run.run)
            facts = {"budget": held.budget, "reserved_usd": str(held.amount_usd)} if held else {}
            freed.append({"run": run.run, "why": why, **facts})
    return freed


def reap(home: Home, ledger: Ledger, clock: Clock, most: int = MOST) -> Reaped:
    """Release machines that no living run should have, with proof, and free what dead launchers hold.

    Ends at most `most` machines; the others are pending. Raises LedgerError only: a provider that fails is unknown.
    """
    return _Reaper(home, ledger, clock, most).reap()


# -- the ledger's side --------------------------------------------------------------------------------------


def _free(home: Home, ledger: Ledger, run: Run, clock: Clock) -> str | None:
    """Close the books on a run without a machine that nobody will take further; why, or None where it is spared."""
    if ledger.owes(run.run):
        return None
    if not ledger.is_ours(run):  # another machine's: its lock cannot be asked from here
        overdue = clock.now() > _deadline(ledger, run) + MARGIN
        return _close(ledger, run, "another machine's, and past its deadline") if overdue else None
    if clock.now() - parse_iso(run.updated_at) < GRACE or is_running(home.run_dir(run.run)):
        return None
    with runner_lock(home.run_dir(run.run)) as mine:  # a runner that starts now waits, and then finds it ended
        run = ledger.run(run.run)
        return _close(ledger, run, f"its launcher died while it was {run.state}") if mine else None


def _close(ledger: Ledger, run: Run, why: str) -> str | None:
    if not run.over and run.state is not RunState.COLLECTED:
        return why if ledger.abandon(run.run, why) else None
    held = ledger.reservation(run.run)
    if held is None or held.settled_at:
        return None  # no money waits for it; its story is told by `resume`
    ledger.settle(run.run)
    return "its runner died before it settled"


def _deadline(ledger: Ledger, run: Run) -> datetime:
    """When a run must be over: by its leases, else by its plan; a plan without a word of it has a month."""
    leases = ledger.leases(run.run)
    if leases:
        return max(parse_iso(lease.deadline) for lease in leases)
    plan = run.plan
    candidates = plan.get("candidates") or [{}]
    ceiling = candidates[plan.get("chosen") or 0].get("ceiling") or {}
    seconds = [ceiling[name] for name in ("provision_s", "run_s", "collect_s") if name in ceiling]
    hours = sum(seconds) / 3600 if seconds else float(plan.get("deadline_h") or 720.0)
    return parse_iso(run.created_at) + timedelta(hours=hours)


# -- the providers' side ------------------------------------------------------------------------------------


class _Reaper:
    def __init__(self, home: Home, ledger: Ledger, clock: Clock, most: int) -> None:
        self._home, self._ledger, self._clock, self._left = home, ledger, clock, most
        self._providers: dict[tuple[str, str], Provider | None] = {}
        self._told = Reaped()

    def reap(self) -> Reaped:
        for run in self._ledger.unfinished():
            if self._ledger.owes(run.run):
                self._end_run(run)
        known = {lease.label: lease for lease in self._ledger.leases()}
        for name in rentable():
            self._end_strays(name, known)
        self._told.freed = reap_quietly(self._home, self._ledger, self._clock)
        return self._told

    def _end_run(self, run: Run) -> None:
        """Release what a run still has, unless somebody may yet take care of it."""
        leases = self._ledger.leases(run.run)
        run_dir, ours = self._home.run_dir(run.run), self._ledger.is_ours(run)
        overdue = self._clock.now() > _deadline(self._ledger, run) + (timedelta(0) if ours else MARGIN)
        if not ours and any(lease.provider == "local" for lease in leases):
            why = "on another machine: only that one can release it"
        elif ours and is_running(run_dir):
            why = "its runner lives"
        elif not overdue and not (ours and run.over):
            why = f"its runner died: launcher resume {run.run}" if ours else "another machine's, within its deadline"
        elif not run.over and all(lease.max_usd_per_hour == ZERO for lease in leases):
            why = f"its runner died, but it costs nothing: launcher resume {run.run}"
        else:
            if not ours:
                self._end_leases(run, leases)
                return
            with runner_lock(run_dir) as mine:
                if mine:
                    self._end_leases(run, self._ledger.leases(run.run))
                    return
            why = "its runner lives"
        for lease in leases:
            if lease.state is not LeaseState.RELEASED:
                self._told.seen.append({**_facts(lease), "why": why})

    def _end_leases(self, run: Run, leases: list[Lease]) -> None:
        if not self._ledger.run(run.run).over:
            reason = "its runner died, and its deadline has passed: released by launcher reap"
            code = int(ExitCode.RECIPE_FAILED)
            self._ledger.move_run(run.run, RunState.FAILED, reason=reason, exit_code=code)
        for lease in leases:
            self._end_lease(lease)
        self._ledger.settle(run.run)

    def _end_lease(self, lease: Lease) -> None:
        provider = self._provider(lease.provider, lease.via)
        was = lease.state
        if provider is None:
            self._told.pending.append({**_facts(lease), "why": f"{lease.provider} cannot be asked from here"})
            return
        if was is not LeaseState.RELEASED and not self._may_end(_facts(lease)):
            return
        try:
            released = release(self._ledger, lease, provider, self._clock)
            if released.state is LeaseState.RELEASED:
                charged = charge(self._ledger, released, provider)
                if was is not LeaseState.RELEASED:
                    facts = {"charged_usd": str(charged), "proof": released.proof or []}
                    self._told.released.append({**_facts(released), **facts})
                return
            why = f"{lease.provider} did not confirm that it is gone"
        except LedgerError:
            raise
        except (LauncherError, OSError) as error:
            why = str(error)
        self._told.pending.append({**_facts(lease), "why": why})

    def _end_strays(self, name: str, known: dict[str, Lease]) -> None:
        """Machines that carry our label although no open lease says so: a lost ledger's, or one that came back."""
        provider = self._provider(name)
        if provider is None:
            return
        why = provider.unusable()
        if why is not None:
            if any(lease.provider == name and lease.state is not LeaseState.RELEASED for lease in known.values()):
                self._told.unknown.append({"provider": name, "why": why})
            return  # without its key nothing of ours can be there, or it can only be seen from where the key is
        try:
            listed = provider.listing()
        except (LauncherError, OSError) as error:
            self._told.unknown.append({"provider": name, "why": str(error)})
            return
        if not listed.complete:
            self._told.unknown.append({"provider": name, "why": "its list of machines was not whole"})
        for machine in listed.machines:
            lease, label = known.get(machine.label), _LABEL.fullmatch(machine.label)
            if label is None or (lease is not None and lease.state is not LeaseState.RELEASED):
                continue  # not ours, or its run's business
            facts = {"provider": name, "label": machine.label, "run": label["run"],
                     "usd_per_hour": str(machine.usd_per_hour)}  # fmt: skip
            ends = datetime.strptime(label["ends"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            if lease is None and self._clock.now() < ends + MARGIN:  # a colleague's, or another ledger's
                self._told.seen.append({**facts, "why": f"not in this ledger; its own deadline is {ends:%F %H:%M}Z"})
            elif self._may_end(facts):
                self._end_stray(machine, provider, facts)

    def _end_stray(self, machine: Machine, provider: Provider, facts: Fact) -> None:
        try:
            proof, _ = end(machine, machine.label, provider, self._clock)
            why = f"{provider.name} did not confirm that it is gone"
        except (LauncherError, OSError) as error:
            proof, why = [], str(error)
        if proof:
            self._ledger.journal("stray.released", {**facts, "proof": proof})
            self._told.released.append({**facts, "proof": proof})
        else:
            self._told.pending.append({**facts, "why": why})

    def _may_end(self, facts: Fact) -> bool:
        if self._left <= 0:
            self._told.pending.append({**facts, "why": "more than --max in one go: run launcher reap again"})
            return False
        self._left -= 1
        return True

    def _provider(self, name: str, via: str = "direct") -> Provider | None:
        if (name, via) not in self._providers:
            try:
                self._providers[name, via] = provider_named(name, self._home, self._clock, via)
            except LauncherError as error:
                self._providers[name, via] = None
                self._told.unknown.append({"provider": name, "why": str(error)})
        return self._providers[name, via]


def _facts(lease: Lease) -> Fact:
    return {
        "provider": lease.provider, "label": lease.label, "run": lease.run, "state": str(lease.state),
        "usd_per_hour": str(lease.max_usd_per_hour), "deadline": lease.deadline,
    }  # fmt: skip
