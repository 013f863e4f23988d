"""The end of a run whose machine another one is to have: it goes on to that run instead of being released."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from launcher.clock import Clock, iso, parse_iso
from launcher.errors import LauncherError, LedgerError, StateError
from launcher.home import Home
from launcher.ledger import Lease, LeaseState, Ledger, Run
from launcher.plan import Candidate, plan_of
from launcher.providers.base import Provider
from launcher.providers.release import cost_until
from launcher.runner.control import is_running, spawn, stop_asked
from launcher.runner.ending import in_words
from launcher.runner.mirror import Mirror
from launcher.sentinel.keeping import Sentinel
from launcher.sentinel.marks import is_guarded


@dataclass(frozen=True)
class Handing:
    """Hands the machine of a run that is done to the next one that is to have it and still fits."""

    home: Home
    ledger: Ledger
    run_id: str
    mirror: Mirror
    clock: Clock

    def hand_over(self, lease: Lease, provider: Provider) -> bool:
        """Can leave the machine billing, to another run with a runner of its own. False: it is to be released.

        Nothing of this run's is needed afterwards: its own part of the lease is charged, its money has moved on.
        """
        if lease.state not in (LeaseState.BUSY, LeaseState.DRAINED):
            return False
        for follower in self.ledger.followers(self.run_id):
            run = self.ledger.run(follower)
            if not self._fits(run, lease):
                continue
            if self._give(lease, run, provider):
                return True
        return False

    def go_on(self) -> None:
        """See that a run which was given this one's machine has a runner: ours may have died in between."""
        for follower in self.ledger.followers(self.run_id):
            run = self.ledger.run(follower)
            run_dir = self.home.run_dir(follower)
            if run.over or not self.ledger.leases(follower) or is_running(run_dir):
                continue
            try:
                with closing(Sentinel(self.home, follower)) as sentinel:  # first: it outlives what fails below
                    sentinel.keep()
            finally:  # one of the two has to look after the machine
                self._start(follower, run_dir)

    def _start(self, follower: str, run_dir: Path) -> None:
        """Start a runner. Where none starts its sentinel tries again, or releases; without one: raises."""
        try:
            spawn(self.home, follower, self.clock)
        except (LauncherError, OSError) as error:
            if not is_guarded(run_dir):
                raise
            words = f"no runner could be started for {follower}, which has the machine now ({in_words(error)})"
            self.mirror.say("warning", message=f"{words}: its sentinel tries again, and releases where it cannot")

    def _fits(self, run: Run, lease: Lease) -> bool:
        """Whether the run waits for this very machine, and there is time for it before the deadline."""
        waits = self.ledger.waits_for(run)
        if waits is None or waits.run != self.run_id or stop_asked(self.home.run_dir(run.run)) is not None:
            return False
        try:
            mine = self.ledger.run(self.run_id)
            if "phi" in {plan_of(each.run, each.plan).allowed.sensitivity for each in (mine, run)}:
                return False  # one run's machine alone, wiped and released after it
            choice = plan_of(run.run, run.plan).choice
        except StateError:
            return False
        left_s = (parse_iso(lease.deadline) - self.clock.now()).total_seconds()
        return _is_on(choice, lease) and choice.next_s + choice.ceiling.collect_s <= left_s

    def _give(self, lease: Lease, run: Run, provider: Provider) -> bool:
        here = self.home.run_dir(self.run_id) / "keys" / lease.lease
        there = self.home.run_dir(run.run) / "keys" / lease.lease
        try:
            shutil.copytree(here, there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("shared-*"))
            there.chmod(0o700)
            now = iso(self.clock.now())
            cost = cost_until(lease, provider, now)
            self.ledger.hand_over(lease, run.run, cost.amount, cost.source, now)
        except LedgerError:
            raise
        except (LauncherError, OSError) as error:  # it is released, and that run gets a machine of its own
            shutil.rmtree(there, ignore_errors=True)
            self.mirror.say("warning", message=f"the machine could not be handed over: {in_words(error)}")
            return False
        shutil.rmtree(here, ignore_errors=True)
        self.mirror.say("lease", lease=lease.lease, state="released", proof=[f"{now} handed over to run {run.run}"])
        self.go_on()
        return True


def _is_on(choice: Candidate, lease: Lease) -> bool:
    return (choice.offer.provider, choice.offer.offer_id) == (lease.provider, lease.offer_id)
