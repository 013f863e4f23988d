import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from launcher.errors import BadInputError, StateError
from launcher.home import Home
from launcher.ledger import Caps, LeaseState, Ledger, RunState
from launcher.ledger.states import LEASE_MOVES, RUN_MOVES, RUN_TERMINAL
from launcher.money import Usd

CAPS = Caps("interactive", Usd(5), Usd(10), Usd(50), concurrent_runs=2, time_zone="Europe/Zurich")


def lease_of(ledger: Ledger, run: str) -> str:
    return ledger.intend_lease(
        run, provider="local", account="here", offer_id="cpu", max_usd_per_hour=Usd("0.40"), reserved=Usd("1.20"),
        deadline="2026-11-20T12:00:00.000Z",
    ).lease  # fmt: skip


def test_one_run_key_has_one_live_run_however_many_launchers_race(home: Home) -> None:
    Ledger.open(home)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: Ledger.open(home, rng=random.Random(n)).create_run("key", {}, "d"), range(16)))
    assert sum(new for _, new in made) == 1
    assert len({run.run for run, _ in made}) == 1


def test_a_key_may_run_again_once_its_run_is_over(home: Home) -> None:
    ledger = Ledger.open(home)
    first, _ = ledger.create_run("key", {}, "d")
    ledger.move_run(first.run, RunState.CANCELLED, reason="no YES", exit_code=3)
    second, new = ledger.create_run("key", {}, "d")
    assert new
    assert second.run != first.run
    assert ledger.run(first.run).reason == "no YES"


def test_no_state_is_skipped_and_nothing_leaves_an_end_state() -> None:
    assert all(not RUN_MOVES[state] for state in RUN_TERMINAL)
    reachable = {LeaseState.INTENDED}
    while more := {to for state in reachable for to in LEASE_MOVES[state]} - reachable:
        reachable |= more
    assert reachable == set(LeaseState)
    machines_may_exist = set(LeaseState) - {LeaseState.RELEASED, LeaseState.INTENDED}
    ways_to_released = {state for state in machines_may_exist if LeaseState.RELEASED in LEASE_MOVES[state]}
    assert ways_to_released == {LeaseState.RELEASING, LeaseState.UNKNOWN, LeaseState.RELEASE_PENDING}


def test_a_wrong_move_is_refused_and_changes_nothing(home: Home) -> None:
    ledger = Ledger.open(home)
    run, _ = ledger.create_run("key", {}, "d")
    lease = lease_of(ledger, run.run)
    with pytest.raises(StateError, match="cannot go from planned to running"):
        ledger.move_run(run.run, RunState.RUNNING)
    with pytest.raises(StateError, match="cannot go from intended to busy"):
        ledger.move_lease(lease, LeaseState.BUSY)
    assert ledger.run(run.run).state is RunState.PLANNED
    assert ledger.leases(run.run)[0].state is LeaseState.INTENDED


def test_the_label_itself_carries_run_and_deadline(home: Home) -> None:
    ledger = Ledger.open(home)
    run, _ = ledger.create_run("key", {}, "d")
    lease_of(ledger, run.run)
    label = ledger.leases(run.run)[0].label
    assert run.run in label
    assert label.endswith("20261120T120000")


def test_every_transition_is_in_the_journal_in_order(home: Home) -> None:
    ledger = Ledger.open(home)
    run, _ = ledger.create_run("key", {}, "d")
    ledger.approve(run.run, "free", Usd(0), {}, "d")
    ledger.move_run(run.run, RunState.APPROVED)
    ledger.reserve(run.run, CAPS, Usd("1.50"))
    ledger.reserve(run.run, CAPS, Usd("9.00"))  # a repeat reserves nothing more
    kinds = [event["kind"] for event in ledger.events(run.run)]
    assert kinds == ["run.planned", "approval", "run.approved", "reserved"]
    assert ledger.events(run.run)[-1]["facts"]["amount_usd"] == "1.500000"


def test_charges_sum_exactly_and_only_once_a_lease(home: Home) -> None:
    ledger = Ledger.open(home)
    run, _ = ledger.create_run("key", {}, "d")
    for _ in range(10):
        lease_of(ledger, run.run)
    for lease in ledger.leases(run.run):
        ledger.charge(lease, Usd("0.1"), "rate x time")
        ledger.charge(lease, Usd("0.1"), "rate x time")
    assert str(ledger.settle(run.run)) == "1.00"


def test_a_run_is_found_by_a_unique_beginning_of_its_id(home: Home) -> None:
    ledger = Ledger.open(home)
    run, _ = ledger.create_run("key", {}, "d")
    assert ledger.run(run.run[:4]).run == run.run
    with pytest.raises(BadInputError, match="names no run"):
        ledger.run("zzz")
    with pytest.raises(BadInputError, match="names no run"):
        ledger.run("%")
