"""The end of a run that nobody takes further: what it holds is released, charged and settled, and its story told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from launcher.clock import Clock, parse_iso
from launcher.errors import ExitCode, LedgerError, StateError
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.layers import Layer, note_rescue
from launcher.ledger import Lease, LeaseState, Ledger, Run, RunState
from launcher.money import Usd
from launcher.plan import plan_of
from launcher.providers.registry import provider_named
from launcher.providers.release import as_held, charge, end, machine_of, release
from launcher.report.after_run import write_receipt_alone, write_reports
from launcher.runner.boarding import Boarding
from launcher.runner.ending import Ending, in_words, say_all
from launcher.runner.interrupts import Interrupts
from launcher.runner.mirror import Mirror
from launcher.runner.wiping import wipe

OTHER_VERSION = Ending(
    RunState.CANCELLED, ExitCode.INTERRUPTED, "planned by another version of the launcher; released at once"
)


def can_read(run: Run) -> bool:
    """Whether this launcher can read the run's plan."""
    try:
        plan_of(run.run, run.plan)
    except StateError:
        return False
    return True


def wind_up(home: Home, ledger: Ledger, run: Run, clock: Clock, why: Ending = OTHER_VERSION,
            by: Layer | None = None, ended: Mapping[str, dict[str, Any]] | None = None) -> ExitCode:  # fmt: skip
    """Release every lease of the run with proof, settle, and say so; nothing is collected. Returns the exit code.

    The run, where it is not over, ends as `why` says. One lease that cannot be released keeps no other from it. The
    journal says which leases were released `by` a layer that stepped in. `ended`: the machines (by lease) that were
    gone before the ledger could be told of it; they are charged until then.
    """
    if not run.over:
        ledger.move_run(run.run, why.state, reason=why.reason, exit_code=int(why.code))
    held = [lease for lease in ledger.leases(run.run) if lease.state is not LeaseState.RELEASED]
    for lease in held:
        if ended and lease.lease in ended:
            ledger.tell_lease(lease.lease, ended[lease.lease])
    end_one = _by_plan(home, ledger, run, clock) if can_read(run) else partial(_without_plan, home, ledger, clock)
    released = all([_ended(end_one, lease) for lease in ledger.leases(run.run)])  # noqa: C419  each one
    gone = {lease.lease for lease in ledger.leases(run.run) if lease.state is LeaseState.RELEASED}
    if by and (done := [lease.lease for lease in held if lease.lease in gone]):
        note_rescue(ledger, run.run, by, "released", leases=done)
    charged, run = ledger.settle(run.run), ledger.run(run.run)
    code = ExitCode(run.exit_code or 0) if released else ExitCode.RELEASE_PENDING
    ledger.set_outcome(run.run, _told(home, ledger, run, code, charged, released=released))
    return code


def end_unrecorded(home: Home, run: Run, lease: Lease, clock: Clock) -> tuple[str, dict[str, Any] | None]:
    """Have a lease's machine ended although the ledger cannot be written: (what came of it, the machine once gone).

    Safe to repeat, before or after a release that is recorded. The machine is as the ledger holds one, and says when
    it was gone.
    """
    try:
        provider = provider_named(lease.provider, home, clock, lease.via)
        listed_by = parse_iso(lease.created_at) + timedelta(seconds=provider.traits.listing_lag_s)
        machine = machine_of(lease) if lease.machine else None
        found = [machine] if machine else []
        if can_read(run):
            run_dir = home.run_dir(run.run)
            keys = LeaseKeys(run_dir / "keys" / lease.lease)
            wipe(lease, plan_of(run.run, run.plan), provider, keys, Mirror(run_dir), clock)
        proof, presence = end(machine, lease.label, provider, clock, not_before=listed_by, found=found.append)
    except Exception as error:  # noqa: BLE001  the other machines are ended all the same
        return f"{lease.label}: {in_words(error)}", None
    if not proof:
        return f"{lease.label}: {presence.value}: not proven to be gone", None
    told = f"{lease.label}: {', '.join(proof)}"
    if not found:
        return told, None
    gone = proof[0].partition(" ")[0]
    return told, as_held(replace(found[0], facts={**found[0].facts, "ended_at": gone}))


def _ended(end_one: Callable[[Lease], bool], lease: Lease) -> bool:
    """Whether nothing of a lease is left, once it was ended."""
    try:
        return end_one(lease)
    except LedgerError:
        raise  # nothing can be told without it
    except Exception:  # noqa: BLE001  the other machines are released all the same, and this one is pending
        say_all()
        return False


def _by_plan(home: Home, ledger: Ledger, run: Run, clock: Clock) -> Callable[[Lease], bool]:
    """As its runner ends a lease: what is not public is removed from the machine first."""
    run_dir = home.run_dir(run.run)
    plan, mirror, interrupts = plan_of(run.run, run.plan), Mirror(run_dir), Interrupts(run_dir)
    return Boarding(home, ledger, run.run, plan, mirror, interrupts, clock).end


def _without_plan(home: Home, ledger: Ledger, clock: Clock, lease: Lease) -> bool:
    provider = provider_named(lease.provider, home, clock, lease.via)
    ended = release(ledger, lease, provider, clock)
    if ended.state is not LeaseState.RELEASED:
        return False
    charge(ledger, ended, provider)
    with suppress(OSError):
        LeaseKeys(home.run_dir(lease.run) / "keys" / lease.lease).destroy()
    return True


def _told(home: Home, ledger: Ledger, run: Run, code: ExitCode, charged: Usd, *, released: bool) -> dict[str, Any]:
    """What `run --json` prints: with all that the run's files still tell, where its plan can be read."""
    run_dir = home.run_dir(run.run)
    if can_read(run):
        told = (run, plan_of(run.run, run.plan), run_dir, ledger)
        try:
            return write_reports(*told, code=code, charged=charged, released=released)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001  a run that is over must say so, whatever its files hold
            say_all()
            with suppress(OSError, ValueError):
                warning = f"the report could not be written: {in_words(error)}"
                return write_receipt_alone(*told, code=code, charged=charged, released=released, warning=warning)
    held = ledger.reservation(run.run)
    return {
        **(run.outcome or {}), "run": run.run, "state": str(run.state), "exit": int(code), "reason": run.reason,
        "artifacts": [], "released": released,
        "usd": {"charged": str(charged), "reserved": str(held.amount_usd if held else charged)},
    }  # fmt: skip
