from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from launcher.errors import BadInputError, ExitCode, RefusedError, StateError
from launcher.home import Home
from launcher.ledger import Caps, Lease, LeaseState, Ledger, RunState, Throughput
from launcher.money import ZERO, Usd

CAPS = Caps("interactive", Usd(5), Usd(10), Usd(50), concurrent_runs=9, time_zone="Europe/Zurich")


class Clock:
    """Time that moves only when a test moves it."""

    def __init__(self, now: datetime) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 20, 12, tzinfo=UTC))


@pytest.fixture
def ledger(home: Home, clock: Clock) -> Ledger:
    return Ledger.open(home, clock)


def run_of(ledger: Ledger, **of_batch: object) -> str:
    run, _ = ledger.create_run(f"key{len(ledger.runs())}", {}, "d", **of_batch)  # type: ignore[arg-type]
    return run.run


def holding(ledger: Ledger, amount: str, caps: Caps = CAPS) -> str:
    run = run_of(ledger)
    ledger.reserve(run, caps, Usd(amount))
    return run


def leased(ledger: Ledger, run: str) -> Lease:
    return ledger.intend_lease(
        run, provider="vast", account="a", offer_id="1", max_usd_per_hour=Usd(1), reserved=Usd(1),
        deadline="2026-11-20T20:00:00.000Z",
    )  # fmt: skip


def spend(ledger: Ledger, run: str, amount: str) -> None:
    """Rent, pay and settle."""
    lease = leased(ledger, run)
    ledger.charge(lease, Usd(amount), "rate x time")
    ledger.move_lease(lease.lease, LeaseState.RELEASED)
    ledger.settle(run)


def refused(ledger: Ledger, caps: Caps, amount: str, run: str | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        ledger.reserve(run or run_of(ledger), caps, Usd(amount))
    assert error.value.exit_code is ExitCode.REFUSED
    assert "\n" not in str(error.value)
    return error.value


def test_exactly_at_the_cap_is_allowed_and_a_millionth_more_is_not(ledger: Ledger) -> None:
    holding(ledger, "5")
    holding(ledger, "4.999999")
    holding(ledger, "0.000001")
    assert ledger.remaining(CAPS)["per_day_usd"] == ZERO
    assert refused(ledger, CAPS, "0.000001").facts["cap"] == "per_day_usd"


def test_a_refusal_names_budget_cap_limit_charged_reserved_and_asked(ledger: Ledger) -> None:
    spend(ledger, holding(ledger, "5"), "3.25")
    holding(ledger, "4.50")
    error = refused(ledger, CAPS, "2.50")
    said = "budget interactive: per_day_usd is $10.00, of which $3.25 is charged and $4.50 reserved; $2.50 is asked."
    assert error.problem == said
    assert error.facts == {
        "budget": "interactive", "cap": "per_day_usd", "when": "now", "asked_usd": "2.50", "limit_usd": "10.00",
        "charged_usd": "3.25", "reserved_usd": "4.50", "frees_at": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("caps", "asked", "cap"),
    [
        (CAPS, "5.01", "per_run_usd"),
        (replace(CAPS, per_day_usd=Usd(2)), "2.01", "per_day_usd"),
        (replace(CAPS, per_month_usd=Usd(2)), "2.01", "per_month_usd"),
        (replace(CAPS, per_run_usd=ZERO), "0.01", "per_run_usd"),
        (replace(CAPS, per_month_usd=ZERO), "0.01", "per_month_usd"),
        (replace(CAPS, concurrent_runs=0), "0.01", "concurrent_runs"),
    ],
)
def test_what_can_never_fit_is_said_to_be_never(ledger: Ledger, caps: Caps, asked: str, cap: str) -> None:
    facts = refused(ledger, caps, asked).facts
    assert (facts["cap"], facts["when"]) == (cap, "never")


def test_never_is_said_before_now(ledger: Ledger) -> None:
    holding(ledger, "5")
    holding(ledger, "5")  # the day is full, which waiting would mend
    assert refused(ledger, replace(CAPS, per_month_usd=Usd(3)), "4").facts["when"] == "never"


def test_what_only_another_day_can_hold_says_when_it_begins(ledger: Ledger) -> None:
    for _ in range(2):
        spend(ledger, holding(ledger, "5"), "4.50")
    error = refused(ledger, CAPS, "2")
    assert (error.facts["when"], error.facts["frees_at"]) == ("now", "2026-11-20T23:00:00.000Z")
    assert "Wait until 2026-11-21 00:00 (Europe/Zurich)" in str(error)


def test_a_run_at_no_cost_is_never_refused(ledger: Ledger) -> None:
    nothing = Caps("none", ZERO, ZERO, ZERO, concurrent_runs=0, time_zone="UTC")
    for _ in range(3):
        holding(ledger, "0", nothing)
    assert ledger.holders("none") == []


def test_concurrency_counts_runs_that_hold_money(ledger: Ledger) -> None:
    one = replace(CAPS, concurrent_runs=1)
    holding(ledger, "0", one)
    first = holding(ledger, "1", one)
    error = refused(ledger, one, "1")
    assert (error.facts["cap"], error.facts["when"], error.facts["runs"]) == ("concurrent_runs", "now", [first])
    holding(ledger, "1", replace(one, budget="another"))
    ledger.settle(first)
    holding(ledger, "1", one)


def test_a_refused_run_holds_nothing(ledger: Ledger) -> None:
    run = run_of(ledger)
    refused(ledger, CAPS, "6", run)
    assert ledger.reservation(run) is None
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(10)


def test_reserving_again_holds_nothing_more(ledger: Ledger) -> None:
    run = holding(ledger, "2")
    ledger.reserve(run, CAPS, Usd(4))
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(8)


def test_a_charge_takes_the_place_of_what_was_held_for_it(ledger: Ledger) -> None:
    run = holding(ledger, "5")
    ledger.charge(leased(ledger, run), Usd(2), "rate x time")
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(5)  # 2 charged, 3 held


def test_settling_frees_what_was_not_charged(ledger: Ledger) -> None:
    run = holding(ledger, "5")
    spend(ledger, run, "2")
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(8)
    free = holding(ledger, "5")
    assert ledger.settle(free) == ZERO
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(8)


def test_a_reservation_stays_open_until_each_lease_is_released_and_charged(ledger: Ledger) -> None:
    run = holding(ledger, "5")
    lease = leased(ledger, run)
    assert ledger.settle(run) == ZERO
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(5)
    ledger.move_lease(lease.lease, LeaseState.RELEASED)
    ledger.settle(run)
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(5)  # released, but nobody has said what it cost
    ledger.charge(lease, Usd(1), "invoice")
    ledger.settle(run)
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(9)


def test_a_charge_above_the_reservation_counts_in_full(ledger: Ledger) -> None:
    run = holding(ledger, "1")
    spend(ledger, run, "12")
    assert ledger.spent(run) == Usd(12)
    assert ledger.remaining(CAPS)["per_day_usd"] == ZERO
    assert "$12.00 is charged" in str(refused(ledger, CAPS, "0.01"))


def test_an_extension_is_held_under_the_same_caps(ledger: Ledger) -> None:
    run = holding(ledger, "3")
    ledger.extend(run, Usd(2), CAPS)
    with pytest.raises(RefusedError, match=r"per_run_usd is \$5.00, of which \$0.00 is charged and \$5.00 reserved"):
        ledger.extend(run, Usd("0.01"), CAPS)
    held = ledger.reservation(run)
    assert held is not None
    assert held.amount_usd == Usd(5)
    ledger.settle(run)
    with pytest.raises(StateError, match="holds no open reservation"):
        ledger.extend(run, Usd(1), CAPS)


def test_a_cancelled_reservation_is_free_again_and_cannot_be_taken_up(ledger: Ledger) -> None:
    run = holding(ledger, "5")
    ledger.cancel_reservation(run)
    ledger.cancel_reservation(run)
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(10)
    with pytest.raises(StateError, match="closed already"):
        ledger.reserve(run, CAPS, Usd(1))
    rented = holding(ledger, "5")
    leased(ledger, rented)
    with pytest.raises(StateError, match="has rented: settle it"):
        ledger.cancel_reservation(rented)


def test_nothing_is_reserved_for_a_run_that_is_over(ledger: Ledger) -> None:
    run = run_of(ledger)
    ledger.move_run(run, RunState.CANCELLED, reason="no YES", exit_code=3)
    with pytest.raises(StateError, match="is over"):
        ledger.reserve(run, CAPS, Usd(1))


def test_a_negative_amount_is_bad_input(ledger: Ledger) -> None:
    run = run_of(ledger)
    with pytest.raises(BadInputError, match="cannot be negative"):
        ledger.reserve(run, CAPS, Usd(-1))
    assert ledger.reservation(run) is None


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Zurich", "2026-03-29", 23),
        ("Europe/Zurich", "2026-10-25", 25),
        ("Africa/Cairo", "2026-04-24", 23),  # its midnight does not exist
        ("America/Havana", "2026-11-01", 25),  # its midnight comes twice
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_a_day_has_as_many_hours_as_its_clocks_give_it(zone: str, day: str, hours: float) -> None:
    caps = replace(CAPS, time_zone=zone)
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=caps.zone)
    period = caps.day(noon)
    assert (period.ends - period.starts).total_seconds() / 3600 == hours
    assert caps.day(period.starts) == period
    assert caps.day(period.ends).starts == period.ends
    assert caps.day(period.ends - timedelta(milliseconds=1)) == period


def test_the_money_of_a_day_comes_back_at_its_own_midnight(ledger: Ledger, clock: Clock) -> None:
    clock.time = datetime(2026, 10, 25, 21, 30, tzinfo=UTC)  # 22:30 in Zurich, on the day of 25 hours
    for _ in range(2):
        spend(ledger, holding(ledger, "5"), "5")
    assert ledger.remaining(CAPS)["per_day_usd"] == ZERO
    clock.time = datetime(2026, 10, 25, 22, 59, 59, tzinfo=UTC)
    assert ledger.remaining(CAPS)["per_day_usd"] == ZERO
    clock.time = datetime(2026, 10, 25, 23, tzinfo=UTC)
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(10)
    assert ledger.remaining(CAPS)["per_month_usd"] == Usd(40)
    clock.time = datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert ledger.remaining(CAPS)["per_month_usd"] == Usd(50)


def test_what_is_held_across_midnight_counts_in_the_new_day_too(ledger: Ledger, clock: Clock) -> None:
    holding(ledger, "5")
    clock.time += timedelta(days=40)
    left = ledger.remaining(CAPS)
    assert (left["per_day_usd"], left["per_month_usd"]) == (Usd(5), Usd(45))


def test_a_charge_dated_in_the_future_counts_now(ledger: Ledger, clock: Clock) -> None:
    clock.time += timedelta(days=60)
    spend(ledger, holding(ledger, "5"), "5")
    clock.time -= timedelta(days=60)
    left = ledger.remaining(CAPS)
    assert (left["per_day_usd"], left["per_month_usd"]) == (Usd(5), Usd(45))


def test_a_batch_amount_binds_all_its_runs_across_midnight(ledger: Ledger, clock: Clock) -> None:
    batch, new = ledger.create_batch("sweep", Usd(6), "typed", "d", "sweep.yaml")
    assert new
    first = run_of(ledger, batch=batch.batch, item=0)
    ledger.reserve(first, CAPS, Usd(4))
    clock.time += timedelta(days=1)
    second = run_of(ledger, item=1)
    with pytest.raises(RefusedError) as error:
        ledger.reserve(second, CAPS, Usd(3), batch=batch.batch)
    assert (error.value.facts["cap"], error.value.facts["when"]) == ("batch_usd", "now")
    spend(ledger, first, "4")
    clock.time += timedelta(days=1)
    with pytest.raises(RefusedError) as error:
        ledger.reserve(second, CAPS, Usd(3), batch=batch.batch)
    assert error.value.facts["when"] == "never"  # what a batch has spent does not come back
    assert f"batch {batch.batch}: its amount is $6.00, of which $4.00 is charged" in str(error.value)
    ledger.reserve(second, CAPS, Usd(2), batch=batch.batch)
    assert [(run.run, run.item) for run in ledger.batch_runs(batch.batch)] == [(first, 0), (second, 1)]


def test_a_batch_key_has_one_live_batch(ledger: Ledger) -> None:
    first, new = ledger.create_batch("sweep", Usd(6), "typed", "d", "sweep.yaml")
    again, new_again = ledger.create_batch("sweep", Usd(9), "typed", "d", "sweep.yaml")
    assert (new, new_again, again) == (True, False, first)
    ledger.close_batch(first.batch, {"exit": 0})
    ledger.close_batch(first.batch, {"exit": 4})
    assert ledger.batch(first.batch).outcome == {"exit": 0}
    assert ledger.create_batch("sweep", Usd(9), "typed", "d", "sweep.yaml")[1]
    with pytest.raises(StateError, match="is over"):
        ledger.reserve(run_of(ledger), CAPS, Usd(1), batch=first.batch)


def test_measured_throughput_is_kept_once_a_run_and_recipe(ledger: Ledger) -> None:
    of_4090 = Throughput(
        gpu="RTX 4090", count=1, recipe="finetune", method="lora", precision="bf16", parameters=617_800_000,
        audio_s_per_s=212.5, audio_s=7_200.0, at="2026-11-20T12:00:00.000Z", run="7f3a12",
    )  # fmt: skip
    ledger.add_throughput(replace(of_4090, audio_s_per_s=100.0))
    ledger.add_throughput(of_4090)
    scored = replace(of_4090, recipe="evaluate", at="2026-11-20T12:01:00.000Z")
    ledger.add_throughput(scored)
    assert ledger.throughputs() == [of_4090, scored]
    assert ledger.throughputs(recipe="finetune", gpu="RTX 4090") == [of_4090]
    assert ledger.throughputs(gpu="L40S") == []
