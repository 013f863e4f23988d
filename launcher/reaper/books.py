"""The ledger's side: what launchers that died still hold in it is freed; no provider is asked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from launcher.clock import Clock, parse_iso
from launcher.home import Home
from launcher.ledger import Ledger, Run, RunState
from launcher.reaper.labels import MARGIN
from launcher.runner.control import is_running, runner_lock

GRACE = timedelta(minutes=2)  # between a run's last word and its runner's lock, for a launcher that is still starting

Fact = dict[str, Any]


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


def _free(home: Home, ledger: Ledger, run: Run, clock: Clock) -> str | None:
    """Close the books on a run without a machine that nobody will take further; why, or None where it is spared."""
    if ledger.owes(run.run):
        return None
    leader = ledger.waits_for(run)
    if leader is not None and not leader.over:
        return None  # it is to have that one's machine
    if not ledger.is_ours(run):  # another machine's: its lock cannot be asked from here
        overdue = clock.now() > deadline_of(ledger, run) + MARGIN
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


def deadline_of(ledger: Ledger, run: Run) -> datetime:
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
