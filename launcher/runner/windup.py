"""The end of a run whose plan this launcher cannot read: what it holds is released, charged and settled."""

from __future__ import annotations

from launcher.clock import Clock
from launcher.errors import ExitCode, StateError
from launcher.home import Home
from launcher.ledger import LeaseState, Ledger, Run, RunState
from launcher.plan import plan_of
from launcher.providers.registry import provider_named
from launcher.providers.release import charge, release


def can_read(run: Run) -> bool:
    """Whether this launcher can read the run's plan."""
    try:
        plan_of(run.run, run.plan)
    except StateError:
        return False
    return True


def wind_up(home: Home, ledger: Ledger, run: Run, clock: Clock) -> ExitCode:
    """Release every lease of the run with proof, settle, and say so; nothing is collected. Returns the exit code."""
    if not run.over:
        reason = "planned by another version of the launcher; released at once"
        ledger.move_run(run.run, RunState.CANCELLED, reason=reason, exit_code=int(ExitCode.INTERRUPTED))
    released = True
    for lease in ledger.leases(run.run):
        provider = provider_named(lease.provider, home, clock, lease.via)
        ended = release(ledger, lease, provider, clock)
        if ended.state is LeaseState.RELEASED:
            charge(ledger, ended, provider)
        released = released and ended.state is LeaseState.RELEASED
    charged, run = ledger.settle(run.run), ledger.run(run.run)
    code = ExitCode(run.exit_code or 0) if released else ExitCode.RELEASE_PENDING
    held = ledger.reservation(run.run)
    usd = {"charged": str(charged), "reserved": str(held.amount_usd if held else charged)}
    ledger.set_outcome(run.run, {
        **(run.outcome or {}), "run": run.run, "state": str(run.state), "exit": int(code), "reason": run.reason,
        "artifacts": [], "released": released, "usd": usd,
    })  # fmt: skip
    return code
