"""A machine that goes from one run to the next: somebody answers for it at every moment, and no cap holds more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from test_reservations import CAPS, Clock, leased

from launcher.errors import StateError
from launcher.home import Home
from launcher.ledger import Lease, LeaseState, Ledger, RunState
from launcher.money import Usd
from launcher.reaper import reap_quietly

AT = "2026-11-20T13:00:00.000Z"
GIVEN = {"how": "typed", "ceiling_usd": Usd(4), "allowed": {}, "digest": "d"}


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 20, 12, tzinfo=UTC))


@pytest.fixture
def ledger(home: Home, clock: Clock) -> Ledger:
    return Ledger.open(home, clock)


def planned(ledger: Ledger, key: str) -> str:
    return ledger.create_run(key, {}, "d", approval=GIVEN)[0].run


def at_work(ledger: Ledger, amount: str = "3") -> tuple[str, Lease]:
    """A run whose work is done, on a machine that lives."""
    run = planned(ledger, "first")
    ledger.reserve(run, CAPS, Usd(amount))
    for state in (RunState.APPROVED, RunState.RESERVED, RunState.RUNNING, RunState.COLLECTED):
        ledger.move_run(run, state)
    lease = leased(ledger, run)
    machine = {"ref": "m1", "usd_per_hour": "1", "facts": {"billed_from": "2026-11-20T12:00:00.000Z", "host": "h"}}
    ledger.move_lease(lease.lease, LeaseState.CREATED, machine=machine)
    for state in (LeaseState.ARMED, LeaseState.STAGED, LeaseState.BUSY):
        lease = ledger.move_lease(lease.lease, state)
    return run, lease


def test_lease_and_money_move_at_one_stroke(ledger: Ledger) -> None:
    run, lease = at_work(ledger)
    second, third = planned(ledger, "second"), planned(ledger, "third")
    ledger.follow(run, [second, third])
    before = ledger.standings(CAPS)
    moved = ledger.hand_over(lease, second, Usd("0.75"), "rate x time", AT)
    assert (moved.lease, moved.label, moved.run, moved.state) == (lease.lease, lease.label, second, LeaseState.ARMED)
    assert moved.deadline == lease.deadline
    assert (moved.machine or {})["facts"] == {"billed_from": AT, "host": "h", "had_before": run}
    (part,) = ledger.leases(run)
    assert (part.state, part.proof) == (LeaseState.RELEASED, [f"{AT} handed over to run {second}"])
    assert ledger.spent(run) == Usd("0.75")
    assert not ledger.owes(run)
    assert ledger.reservation(run).settled_at is not None  # type: ignore[union-attr]
    held = ledger.reservation(second)
    assert held is not None
    assert (held.amount_usd, held.settled_at) == (Usd("2.25"), None)
    assert [each.left for each in ledger.standings(CAPS)][1:] == [each.left for each in before][1:]
    assert ledger.run(second).state is RunState.RESERVED
    assert ledger.followers(second) == [third]
    assert ledger.waits_for(ledger.run(third)).run == second  # type: ignore[union-attr]
    assert ledger.settle(run) == Usd("0.75")
    assert ledger.owes(second)


@pytest.mark.parametrize("case", ["not collected", "begun", "not approved", "another lease", "spent", "released"])
def test_what_cannot_be_handed_over_is_left_as_it_was(ledger: Ledger, case: str) -> None:
    run, lease = at_work(ledger)
    second = planned(ledger, "second")
    ledger.follow(run, [second])
    charged = Usd("0.75")
    if case == "not collected":
        ledger.move_run(run, RunState.STOPPED)
    elif case == "begun":
        ledger.reserve(second, CAPS, Usd(1))
    elif case == "not approved":
        second = ledger.create_run("bare", {}, "d")[0].run
    elif case == "another lease":
        leased(ledger, run)
    elif case == "spent":
        charged = Usd(3)
    else:
        ledger.move_lease(lease.lease, LeaseState.RELEASING)
    leases, held = ledger.leases(), ledger.reservations()
    with pytest.raises(StateError, match=r"cannot go|nothing left"):
        ledger.hand_over(lease, second, charged, "rate x time", AT)
    assert (ledger.leases(), ledger.reservations()) == (leases, held)
    assert ledger.spent(run) == 0


def test_a_run_that_waits_for_a_machine_is_not_taken_for_a_dead_one(
    ledger: Ledger, home: Home, clock: Clock
) -> None:
    run, _ = at_work(ledger)
    second = planned(ledger, "second")
    ledger.follow(run, [second])
    clock.sleep(timedelta(hours=3).total_seconds())
    assert [fact["run"] for fact in reap_quietly(home, ledger, clock)] == []
    ledger.move_run(run, RunState.FAILED)
    assert second in [fact["run"] for fact in reap_quietly(home, ledger, clock)]
