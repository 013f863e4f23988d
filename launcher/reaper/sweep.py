"""Ledger and labels against providers: releases, with proof, what is ours and should be gone; spares all else.

Whose machine it is and whether it should be gone is read from the ledger, and where that does not know it (it is
another's, was lost, or was restored from an older copy) from the label alone: past its deadline by the provider's own
clock, or of a run or an owner that the caller knows to be over. A machine without a label of ours is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from launcher.clock import Clock, iso
from launcher.errors import ExitCode, LauncherError, LedgerError, StateError
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.layers import note_rescue
from launcher.ledger import Lease, LeaseState, Ledger, Run, RunState, slug
from launcher.money import ZERO
from launcher.providers.base import Machine, Provider
from launcher.providers.moment import moment_at
from launcher.providers.registry import provider_named, rentable
from launcher.providers.release import charge, end, machine_of, release
from launcher.reaper.books import Fact, reap_quietly
from launcher.reaper.labels import MARGIN, NOBODY, UNSURE, Label, Over
from launcher.runner.control import ask_to_stop, is_running, runner_lock
from launcher.sentinel.marks import is_guarded

MOST = 10  # machines released at once: a mistake of ours does not end everything
STOP_S = 180.0  # how long a living runner that was told to release may take, before its machine counts as pending
_CLOCKS_MAY_DIFFER = MARGIN / 2


@dataclass
class Reaped:
    """What `launcher reap` saw and did; each is a list of facts, ready for JSON."""

    seen: list[Fact] = field(default_factory=list)  # ours, and left alone
    released: list[Fact] = field(default_factory=list)
    pending: list[Fact] = field(default_factory=list)  # should be gone, and may still bill
    unknown: list[Fact] = field(default_factory=list)  # a provider whose answer proves nothing
    freed: list[Fact] = field(default_factory=list)  # runs without a machine whose launcher died
    notes: list[str] = field(default_factory=list)  # a clock that is wrong, a ledger that could not be written


def reap(home: Home, ledger: Ledger | None, clock: Clock, most: int = MOST, over: Over = NOBODY) -> Reaped:
    """Release machines that no living run should have, with proof, and free what dead launchers hold.

    `over` names runs and owners that are known to be dead: theirs are released before their deadline, and a runner of
    theirs that lives here is told to release. Ends at most `most` machines, and none by its label alone where those
    would be more: all others are pending. Without a ledger it goes by labels alone. Raises nothing: a provider that
    fails is unknown, a ledger that fails is noted.
    """
    return _Reaper(home, ledger, clock, most, over).reap()


class _Reaper:
    def __init__(self, home: Home, ledger: Ledger | None, clock: Clock, most: int, over: Over) -> None:
        self._home, self._ledger, self._clock, self._left, self._most = home, ledger, clock, most, most
        self._over = over
        self._providers: dict[tuple[str, str], Provider | None] = {}
        self._ahead: dict[str, timedelta | None] = {}  # how far our clock is ahead of a provider's
        self._told = Reaped()

    def reap(self) -> Reaped:
        began = self._clock.monotonic()
        known: dict[str, Lease] = {}
        if self._ledger is not None:
            try:
                self._stop_runners(self._ledger)
                for run in self._ledger.unfinished():
                    if self._ledger.owes(run.run):
                        self._end_run(self._ledger, run)
                known = {lease.label: lease for lease in self._ledger.leases()}
            except LedgerError as error:
                self._told.notes.append(f"{error} What it knows was left alone; labels were gone by.")
        self._end_strays(rentable(), known, NOBODY)
        if self._over.owners or self._over.runs - {lease.run for lease in known.values()}:
            self._end_late_strays(began, known)
        if self._ledger is not None:
            try:
                self._told.freed = reap_quietly(self._home, self._ledger, self._clock)
            except LedgerError as error:
                self._told.notes.append(str(error))
        return self._told

    # -- what the ledger knows ------------------------------------------------------------------------------

    def _stop_runners(self, ledger: Ledger) -> None:
        """Have living runners here release what is known to be over, themselves: they know best what they hold."""
        named = [run.run for run in ledger.unfinished() if self._is_named(run)]
        alive = [run_dir for run in named if _is_looked_after(run_dir := self._home.run_dir(run))]
        for run_dir in alive:
            ask_to_stop(run_dir, "now")
        ends = self._clock.monotonic() + STOP_S
        while any(map(_is_looked_after, alive)) and self._clock.monotonic() < ends:
            self._clock.sleep(0.5)

    def _end_run(self, ledger: Ledger, run: Run) -> None:
        """Release what a run still has, unless somebody may yet take care of it."""
        leases = ledger.leases(run.run)
        run_dir, ours = self._home.run_dir(run.run), ledger.is_ours(run)
        named = self._is_named(run)
        overdue = named or all(self._is_overdue(lease, ours=ours) for lease in leases)
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
                self._end_leases(ledger, run, leases, named=named)
                return
            with runner_lock(run_dir) as mine:
                if mine:
                    self._end_leases(ledger, run, ledger.leases(run.run), named=named)
                    return
            why = "its runner lives"
        for lease in leases:
            if lease.state is not LeaseState.RELEASED:
                where = self._told.pending if named and why == "its runner lives" else self._told.seen
                where.append({**_facts(lease), "why": why})

    def _is_named(self, run: Run) -> bool:
        """Whether the caller knows it to be over. The ledger's word, not a label's: a machine may be handed over."""
        return run.run in self._over.runs or slug(run.owner) in self._over.owners

    def _is_overdue(self, lease: Lease, *, ours: bool) -> bool:
        """Whether a lease is past its deadline: by its label and its provider's clock, where those are to be had."""
        label = Label.read(lease.label)
        if label is not None and label.lease != lease.lease:
            label = None  # written for the run before, which handed the machine over
        now = self._moment(lease.provider) if label is not None and lease.provider != "local" else None
        margin = timedelta(0) if ours else MARGIN
        if now is not None and label is not None:
            return now > label.ends + margin
        return self._clock.now() > datetime.fromisoformat(lease.deadline).astimezone(UTC) + margin

    def _end_leases(self, ledger: Ledger, run: Run, leases: list[Lease], *, named: bool) -> None:
        words = "it was named as over" if named else "its deadline has passed"
        try:
            if not ledger.run(run.run).over:
                reason = f"its runner died, and {words}: released by launcher reap"
                code = int(ExitCode.RECIPE_FAILED)
                ledger.move_run(run.run, RunState.FAILED, reason=reason, exit_code=code)
        except LedgerError as error:  # a full disk here is no reason to let a machine bill on
            self._told.notes.append(str(error))
        for lease in leases:
            self._end_lease(ledger, lease)
        try:
            ledger.settle(run.run)
        except LedgerError as error:
            self._told.notes.append(str(error))

    def _end_lease(self, ledger: Ledger, lease: Lease) -> None:
        from launcher.reaper.box_word import word_of

        provider = self._provider(lease.provider, lease.via)
        was = lease.state
        if provider is None:
            self._told.pending.append({**_facts(lease), "why": f"{lease.provider} cannot be asked from here"})
            return
        if was is not LeaseState.RELEASED and not self._may_end(_facts(lease)):
            return
        facts = _facts(lease)
        try:
            facts |= word_of(self._home, lease, provider)
            facts |= self._wiped(ledger, lease, provider)
            released = release(ledger, lease, provider, self._clock)
            if released.state is LeaseState.RELEASED:
                charged = charge(ledger, released, provider)
                if was is not LeaseState.RELEASED:
                    note_rescue(ledger, lease.run, "reaper", "released", lease=lease.lease)
                    facts |= {"state": "released", "charged_usd": str(charged), "proof": released.proof or []}
                    self._told.released.append(facts)
                return
            why = f"{lease.provider} did not confirm that it is gone"
        except LedgerError as error:
            self._told.notes.append(str(error))
            self._end_unwritten(lease, provider, facts)
            return
        except Exception as error:  # noqa: BLE001  (the other machines are looked at all the same)
            why = _in_words(error)
        self._told.pending.append({**facts, "why": why})

    def _wiped(self, ledger: Ledger, lease: Lease, provider: Provider) -> Fact:
        """Remove what is not public from a machine that is about to go, where this home has the key to it."""
        from launcher.plan import plan_of
        from launcher.runner.wiping import is_to_be_wiped, try_to_wipe

        try:
            plan = plan_of(lease.run, ledger.run(lease.run).plan)
        except StateError:  # of another version of the launcher: nobody here knows what it was sent
            return {}
        if not is_to_be_wiped(lease, plan):
            return {}
        try:
            why = try_to_wipe(lease, provider, LeaseKeys(self._home.run_dir(lease.run) / "keys" / lease.lease))
        except Exception as error:  # noqa: BLE001  (whatever a machine answers: it is released, in this sweep)
            why = type(error).__name__
        if why is not None:
            held = f"{lease.label}: {plan.allowed.sensitivity} data was not removed before its release"
            self._told.notes.append(f"{held} ({why}): it goes with the machine")
        return {"wiped": why is None}

    def _end_unwritten(self, lease: Lease, provider: Provider, facts: Fact) -> None:
        """End a machine although the ledger takes no word of it: the next sweep writes it down, and charges it."""
        try:
            proof, _ = end(machine_of(lease) if lease.machine else None, lease.label, provider, self._clock)
            why = f"{lease.provider} did not confirm that it is gone"
        except Exception as error:  # noqa: BLE001  (the other machines are looked at all the same)
            proof, why = [], _in_words(error)
        if proof:
            self._told.released.append({**facts, "proof": proof})
        else:
            self._told.pending.append({**facts, "why": why})

    # -- what only a label knows ----------------------------------------------------------------------------

    def _end_late_strays(self, began: float, known: dict[str, Lease]) -> None:
        """Look again once a machine must be listed that was asked for just before its run was known to be over."""
        usable = [name for name in rentable() if (found := self._provider(name)) and found.unusable() is None]
        lag = max((found.traits.listing_lag_s for name in usable if (found := self._provider(name))), default=0.0)
        left = began + lag - self._clock.monotonic()
        if left > 0:
            self._clock.sleep(left)
            self._end_strays(usable, known, self._over)

    def _end_strays(self, names: Iterable[str], known: dict[str, Lease],
                    only: Over) -> None:  # fmt: skip
        """Machines that carry our label although no open lease says so: a lost ledger's, or one that came back.

        All of them or none: that so many are to go by their label alone may be a mistake of ours.
        """
        doomed: list[tuple[Machine, Provider, Fact]] = []
        told = {fact.get("label") for facts in (self._told.released, self._told.pending) for fact in facts}
        for name in names:
            for machine, label in self._listed(name, known):
                provider = self._provider(name)
                if provider is None or label.text in told or (only and not only.names(label)):
                    continue
                facts = {"provider": name, "label": label.text, "run": label.run, "deadline": iso(label.ends),
                         "usd_per_hour": str(machine.usd_per_hour)}  # fmt: skip
                spared = None if label.text in known else self._why_spared(name, label)
                if spared is None:
                    doomed.append((machine, provider, facts))
                else:
                    self._told.seen.append({**facts, "why": spared})
        if len(doomed) > self._left:
            why = (f"{len(doomed)} machines would be ended by their label alone, more than --max {self._most}: none "
                   "was. If all of them should go, say so with --max")  # fmt: skip
            self._told.pending += [{**facts, "why": why} for _, _, facts in doomed]
            return
        for machine, provider, facts in doomed:
            self._left -= 1
            self._end_stray(machine, provider, facts)

    def _listed(self, name: str, known: dict[str, Lease]) -> Iterator[tuple[Machine, Label]]:
        """The machines of a provider that carry our label and are no open lease's business."""
        provider = self._provider(name)
        if provider is None:
            return
        why = provider.unusable()
        if why is not None:
            if any(lease.provider == name and lease.state is not LeaseState.RELEASED for lease in known.values()):
                self._unknown(name, why)
            return  # without its key nothing of ours can be there, or it can only be seen from where the key is
        try:
            listed = provider.listing()
        except Exception as error:  # noqa: BLE001  (the other machines are looked at all the same)
            self._unknown(name, _in_words(error))
            return
        if not listed.complete:
            self._unknown(name, "its list of machines was not whole")
        for machine in listed.machines:
            lease, label = known.get(machine.label), Label.read(machine.label)
            if label is not None and (lease is None or lease.state is LeaseState.RELEASED):
                yield machine, label

    def _why_spared(self, name: str, label: Label) -> str | None:
        """Why a machine that no ledger here knows is left alone: it may be a colleague's. None: it is not."""
        if self._over.names(label):
            return None
        moment = self._moment(name)
        if (moment or self._clock.now()) >= label.ends + (UNSURE if moment is None else MARGIN):
            return None
        if self._is_forgotten(label):
            return None
        return f"not in this ledger; its own deadline is {label.ends:%F %H:%M}Z"

    def _is_forgotten(self, label: Label) -> bool:
        """Whether it is of a run of this very home that the ledger has lost, and nobody can go on with."""
        run_dir = self._home.run_dir(label.run)
        if self._ledger is None or not (run_dir / "runner.lock").exists() or is_running(run_dir):
            return False  # a ledger that only cannot be asked just now may know it
        keys = self._home.root.glob(f"runs/*/keys/{label.lease}")
        if any(is_running(folder.parent.parent) for folder in keys):
            return False  # it was handed over, and whoever has it now lives
        last = max(path.stat().st_mtime for path in (run_dir, *run_dir.iterdir()))
        return self._clock.now().timestamp() - last > MARGIN.total_seconds()

    def _end_stray(self, machine: Machine, provider: Provider, facts: Fact) -> None:
        try:
            proof, _ = end(machine, machine.label, provider, self._clock)
            why = f"{provider.name} did not confirm that it is gone"
        except Exception as error:  # noqa: BLE001  (the other machines are looked at all the same)
            proof, why = [], _in_words(error)
        if not proof:
            self._told.pending.append({**facts, "why": why})
            return
        self._told.released.append({**facts, "proof": proof})
        if self._ledger is not None:
            try:
                self._ledger.journal("stray.released", {**facts, "proof": proof})
            except LedgerError as error:
                self._told.notes.append(str(error))

    # -- asking ---------------------------------------------------------------------------------------------

    def _may_end(self, facts: Fact) -> bool:
        if self._left <= 0:
            self._told.pending.append({**facts, "why": "more than --max in one go: run launcher reap again"})
            return False
        self._left -= 1
        return True

    def _moment(self, name: str) -> datetime | None:
        """What a provider's own clock says now, by one question a sweep; None where that is not known."""
        if name not in self._ahead:
            found = moment_at(name, self._clock)
            self._ahead[name] = ahead = self._clock.now() - found if found else None
            if ahead is not None and abs(ahead) > _CLOCKS_MAY_DIFFER:
                how = f"{abs(ahead).total_seconds() / 60:.0f} min {'ahead of' if ahead > timedelta(0) else 'behind'}"
                self._told.notes.append(f"this computer's clock is {how} {name}'s: deadlines were judged by {name}'s")
        ahead = self._ahead[name]
        return None if ahead is None else self._clock.now() - ahead

    def _unknown(self, name: str, why: str) -> None:
        if not any(fact["provider"] == name for fact in self._told.unknown):
            self._told.unknown.append({"provider": name, "why": why})

    def _provider(self, name: str, via: str = "direct") -> Provider | None:
        if (name, via) not in self._providers:
            try:
                self._providers[name, via] = provider_named(name, self._home, self._clock, via)
            except LauncherError as error:
                self._providers[name, via] = None
                self._unknown(name, str(error))
        return self._providers[name, via]


def _is_looked_after(run_dir: Path) -> bool:
    """Whether a runner lives, or the sentinel of one that died: it is about to release, or to start another."""
    return is_running(run_dir) or is_guarded(run_dir)


def _in_words(error: Exception) -> str:
    foreseen = isinstance(error, LauncherError | OSError)
    return str(error) if foreseen else f"{type(error).__name__}: {error} (a fault of the launcher: please report it)"


def _facts(lease: Lease) -> dict[str, Any]:
    return {
        "provider": lease.provider, "label": lease.label, "run": lease.run, "state": str(lease.state),
        "usd_per_hour": str(lease.max_usd_per_hour), "deadline": lease.deadline,
    }  # fmt: skip
