"""A model of what is held and charged, beside the real ledger: whatever happens, in whatever order, they agree."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from oracle import tables
from real_postgres import Postgres

from launcher.errors import RefusedError
from launcher.home import Home
from launcher.ledger import Caps, Lease, LeaseState, Ledger
from launcher.money import Usd
from launcher.reaper import GRACE, reap_quietly
from launcher.runner.control import runner_lock

BUDGETS = {
    "interactive": Caps("interactive", Usd(5), Usd(8), Usd(20), concurrent_runs=3, time_zone="Europe/Zurich"),
    "night": Caps("night", Usd(3), Usd("6.5"), Usd(9), concurrent_runs=9, time_zone="America/Havana"),
    "none": Caps("none", Usd(0), Usd(0), Usd(0), concurrent_runs=1, time_zone="UTC"),
}
BATCH_USD = Usd("7.25")
# Days of 23 and of 25 hours, a midnight that comes twice, the ends of months and of a year.
BEGINNINGS = [
    datetime(2026, 3, 28, 21, tzinfo=UTC), datetime(2026, 10, 24, 21, tzinfo=UTC),
    datetime(2026, 10, 31, 21, tzinfo=UTC), datetime(2026, 11, 1, 3, tzinfo=UTC),
    datetime(2026, 12, 31, 21, tzinfo=UTC), datetime(2028, 2, 28, 21, tzinfo=UTC),
]  # fmt: skip
AMOUNTS = st.sampled_from(["1", "0.5", "0.000001", "2.5", "0", "3", "5", "5.000001", "8"]).map(Usd)
BUDGET = st.sampled_from(["interactive", "interactive", "night", "none"])
ASKED = st.tuples(BUDGET, AMOUNTS, st.booleans())
FRACTIONS = st.sampled_from(["0", "0.1", "0.5", "1"]).map(Usd)


class Clock:
    """Time that moves only when a rule moves it."""

    def __init__(self, time: datetime) -> None:
        self.time = time

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class Model:
    """One run, as we know it without asking the ledger."""

    run: str
    began: datetime
    batch: bool
    alive: bool = True
    over: bool = False
    budget: str | None = None
    amount: Decimal = Decimal(0)
    is_open: bool = False
    charges: list[tuple[datetime, Decimal]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)  # released ones are taken off

    @property
    def charged(self) -> Decimal:
        return sum((usd for _, usd in self.charges), Decimal(0))

    @property
    def held(self) -> Decimal:
        return max(Decimal(0), self.amount - self.charged) if self.is_open else Decimal(0)


def make_machine(database: Callable[[], str] | None) -> type[RuleBasedStateMachine]:
    class Money(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            memory = Path("/dev/shm")
            self.folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=memory if memory.is_dir() else None))
            os.environ.pop("LAUNCHER_LEDGER", None)
            if database is not None:
                os.environ["LAUNCHER_LEDGER"] = database()
            self.home = Home(self.folder)
            self.runs: list[Model] = []
            self.locks: dict[str, ExitStack] = {}
            self.turned_back = self.overrun = False

        def teardown(self) -> None:
            for run in list(self.locks):
                self.locks.pop(run).close()
            os.environ.pop("LAUNCHER_LEDGER", None)
            shutil.rmtree(self.folder)

        @initialize(time=st.sampled_from(BEGINNINGS), asked=st.lists(ASKED, min_size=2, max_size=6))
        def begin(self, time: datetime, asked: list[tuple[str, Usd, bool]]) -> None:
            self.clock = Clock(time)
            self.ledger = Ledger.open(self.home, self.clock)
            self.batch = self.ledger.create_batch("sweep", BATCH_USD, "typed", "d", "sweep.yaml")[0].batch
            self.launch_all(asked)

        # -- what the model expects -----------------------------------------------------------------------

        def standing(self, caps: Caps) -> tuple[Decimal, Decimal]:
            """What is taken of the day and of the month, by calendar dates: charges since, and all that is held."""
            zone = ZoneInfo(caps.time_zone)
            today = self.clock.time.astimezone(zone).date()

            def local(at: datetime) -> date:
                return at.astimezone(zone).date()

            mine = [run for run in self.runs if run.budget == caps.budget]
            charges = [(local(at), usd) for run in mine for at, usd in run.charges]
            held = sum((run.held for run in mine), Decimal(0))
            day = sum((usd for at, usd in charges if at >= today), held)
            month = sum((usd for at, usd in charges if (at.year, at.month) >= (today.year, today.month)), held)
            return day, month

        def why_not(self, run: Model, caps: Caps, asked: Decimal) -> dict[str, bool]:
            """The caps that do not hold this much more, and whether they ever can."""
            if asked == 0:
                return {}
            day, month = self.standing(caps)
            of_batch = [each for each in self.runs if each.batch]
            spent = sum((each.charged for each in of_batch), Decimal(0))
            batch = spent + sum((each.held for each in of_batch), Decimal(0))
            over = {}
            if run.charged + run.held + asked > caps.per_run_usd:
                over["per_run_usd"] = run.charged + asked <= caps.per_run_usd
            if day + asked > caps.per_day_usd:
                over["per_day_usd"] = asked <= caps.per_day_usd
            if month + asked > caps.per_month_usd:
                over["per_month_usd"] = asked <= caps.per_month_usd
            if run.batch and batch + asked > BATCH_USD:
                over["batch_usd"] = spent + asked <= BATCH_USD
            others = [each for each in self.runs if each.is_open and each.budget == caps.budget and each.amount > 0]
            if run.amount == 0 and len(others) >= caps.concurrent_runs:
                over["concurrent_runs"] = True
            return over

        def ask(self, run: Model, caps: Caps, asked: Usd, act: Callable[[], None]) -> bool:
            """Do it; the ledger must grant it exactly when every cap of the model does."""
            over = self.why_not(run, caps, asked)
            try:
                act()
            except RefusedError as error:
                cap, when = str(error.facts["cap"]), error.facts["when"]
                assert cap in over, f"refused by {cap}, which has room"
                assert when == ("now" if over[cap] else "never")
                assert when == "never" or all(over.values()), "what never fits is said first"
                return False
            assert not over, f"granted, though {over}"
            return True

        def one(self, data: st.DataObject, fits: Callable[[Model], bool]) -> Model:
            return data.draw(st.sampled_from([run for run in self.runs if fits(run)]))

        # -- what can happen ------------------------------------------------------------------------------

        def new_run(self, batch: bool) -> Model:
            key = f"key{len(self.runs)}"
            run, _ = self.ledger.create_run(key, {}, "d", batch=self.batch if batch else None)
            self.runs.append(Model(run.run, self.clock.time, batch))
            lock = self.locks[run.run] = ExitStack()
            assert lock.enter_context(runner_lock(self.home.run_dir(run.run)))
            return self.runs[-1]

        @rule(batch=st.booleans())
        def launch_and_wait(self, batch: bool) -> None:
            self.new_run(batch)

        @rule(asked=st.lists(ASKED, min_size=1, max_size=4))
        def launch(self, asked: list[tuple[str, Usd, bool]]) -> None:
            self.launch_all(asked)

        def launch_all(self, asked: list[tuple[str, Usd, bool]]) -> None:
            for budget, amount, batch in asked:
                self.hold(self.new_run(batch), budget, amount)

        @precondition(lambda self: any(run.budget is None and not run.over for run in self.runs))
        @rule(data=st.data(), budget=BUDGET, amount=AMOUNTS)
        def reserve(self, data: st.DataObject, budget: str, amount: Usd) -> None:
            self.hold(self.one(data, lambda run: run.budget is None and not run.over), budget, amount)

        def hold(self, run: Model, budget: str, amount: Usd) -> None:
            caps = BUDGETS[budget]
            if self.ask(run, caps, amount, lambda: self.ledger.reserve(run.run, caps, amount)):
                run.budget, run.amount, run.is_open = budget, Decimal(amount), True
                self.ledger.reserve(run.run, caps, Usd(4))  # asking again holds nothing more

        @precondition(lambda self: any(run.is_open for run in self.runs))
        @rule(data=st.data(), extra=AMOUNTS)
        def extend(self, data: st.DataObject, extra: Usd) -> None:
            run = self.one(data, lambda run: run.is_open)
            caps = BUDGETS[str(run.budget)]
            if self.ask(run, caps, extra, lambda: self.ledger.extend(run.run, extra, caps)):
                run.amount += extra

        @precondition(lambda self: any(run.is_open and not run.over and len(run.leases) < 2 for run in self.runs))
        @rule(data=st.data())
        def rent(self, data: st.DataObject) -> None:
            self._rent(self.one(data, lambda run: run.is_open and not run.over and len(run.leases) < 2))

        def _rent(self, run: Model) -> None:
            lease = self.ledger.intend_lease(
                run.run, provider="vast", account="a", offer_id="o", max_usd_per_hour=Usd(1),
                reserved=Usd(run.amount), deadline="2030-01-01T00:00:00.000Z",
            )  # fmt: skip
            run.leases.append(lease)

        @precondition(lambda self: any(run.is_open and not run.over for run in self.runs))
        @rule(data=st.data(), fraction=FRACTIONS)
        def rent_and_pay(self, data: st.DataObject, fraction: Usd) -> None:
            run = self.one(data, lambda run: run.is_open and not run.over)
            self._rent(run)
            self._pay(run, Usd(run.held) * fraction)

        @precondition(lambda self: any(run.leases for run in self.runs))
        @rule(data=st.data(), fraction=FRACTIONS)
        def pay(self, data: st.DataObject, fraction: Usd) -> None:
            """Release a machine and record what it cost, of what is still held for it."""
            run = self.one(data, lambda run: bool(run.leases))
            self._pay(run, Usd(run.held) * fraction)

        @precondition(lambda self: len(self.runs) > 6 and any(run.leases and run.amount > 0 for run in self.runs))
        @rule(data=st.data())
        def pay_too_much(self, data: st.DataObject) -> None:
            """A provider refused release for hours: what it billed is recorded in full."""
            run = self.one(data, lambda run: bool(run.leases) and run.amount > 0)
            self.overrun = True
            self._pay(run, Usd(run.held) + Usd("0.75"))

        def _pay(self, run: Model, cost: Usd) -> None:
            lease = run.leases.pop()
            self.ledger.charge(lease, cost, "rate x time")
            self.ledger.charge(lease, cost + 1, "rate x time")  # a runner that was killed says it again
            self.ledger.move_lease(lease.lease, LeaseState.RELEASED, proof=["absent", "absent"])
            run.charges.append((self.clock.time, Decimal(cost)))

        @precondition(lambda self: any(run.is_open for run in self.runs))
        @rule(data=st.data())
        def settle(self, data: st.DataObject) -> None:
            run = self.one(data, lambda run: run.budget is not None)
            assert self.ledger.settle(run.run) == run.charged
            run.is_open = run.is_open and bool(run.leases)

        @precondition(lambda self: any(not run.leases and not run.charges for run in self.runs))
        @rule(data=st.data())
        def cancel(self, data: st.DataObject) -> None:
            run = self.one(data, lambda run: not run.leases and not run.charges)
            self.ledger.cancel_reservation(run.run)
            run.is_open = False

        @precondition(lambda self: any(run.alive for run in self.runs))
        @rule(data=st.data())
        def crash(self, data: st.DataObject) -> None:
            run = self.one(data, lambda run: run.alive)
            self.locks.pop(run.run).close()
            run.alive = False
            self.ledger = Ledger.open(self.home, self.clock)

        @rule()
        def reap(self) -> None:
            dead = {
                run.run for run in self.runs
                if not run.alive and not run.leases and not run.over and self.clock.time - run.began >= GRACE
            }  # fmt: skip
            assert {fact["run"] for fact in reap_quietly(self.home, self.ledger, self.clock)} == dead
            for run in self.runs:
                if run.run in dead:
                    run.over, run.is_open = True, False

        @rule(budget=BUDGET, to=st.sampled_from(["minutes", "day", "month"]), before=st.booleans())
        def time_goes_by(self, budget: str, to: str, before: bool) -> None:
            """A while, or to the midnight or the end of the month of a budget's zone, or a second before it."""
            caps, now = BUDGETS[budget], self.clock.time
            soon = now + timedelta(minutes=37)
            ends = {"minutes": soon, "day": caps.day(now).ends, "month": caps.month(now).ends}[to]
            self.clock.time = max(now, ends - timedelta(seconds=1 if before else 0))

        @precondition(lambda self: len(self.runs) > 6)
        @rule(hours=st.integers(1, 50))
        def clock_is_set_back(self, hours: int) -> None:
            self.clock.time -= timedelta(hours=hours)
            self.turned_back = True

        # -- what always holds ----------------------------------------------------------------------------

        @invariant()
        def the_tables_say_what_the_model_says(self) -> None:
            reservations, charges = tables(
                self.home, "SELECT run, budget, amount_usd, settled_at FROM reservations",
                "SELECT run, amount_usd FROM charges",
            )  # fmt: skip
            told = {run: (budget, Decimal(usd), settled is None) for run, budget, usd, settled in reservations}
            assert told == {run.run: (run.budget, run.amount, run.is_open) for run in self.runs if run.budget}
            for run in self.runs:
                assert sum((Decimal(usd) for of, usd in charges if of == run.run), Decimal(0)) == run.charged

        @invariant()
        def what_is_left_is_what_the_model_says(self) -> None:
            for caps in BUDGETS.values():
                day, month = self.standing(caps)
                assert self.ledger.remaining(caps) == {
                    "per_run_usd": caps.per_run_usd,
                    "per_day_usd": max(Decimal(0), caps.per_day_usd - day),
                    "per_month_usd": max(Decimal(0), caps.per_month_usd - month),
                }

        @invariant()
        def no_cap_is_exceeded(self) -> None:
            """Unless a provider charged more than was held, or the clock was set back over what a day has spent."""
            if self.overrun:
                return
            assert sum((run.charged + run.held for run in self.runs if run.batch), Decimal(0)) <= BATCH_USD
            for caps in BUDGETS.values():
                mine = [run for run in self.runs if run.budget == caps.budget]
                assert all(run.charged + run.held <= caps.per_run_usd for run in mine)
                assert sum(run.is_open and run.amount > 0 for run in mine) <= caps.concurrent_runs
                day, month = self.standing(caps)
                if not self.turned_back:
                    assert day <= caps.per_day_usd
                    assert month <= caps.per_month_usd

    return Money


EXAMPLES = int(os.environ.get("LAUNCHER_TEST_EXAMPLES", "20"))


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_every_cap_is_kept_whatever_happens(engine: str, request: pytest.FixtureRequest) -> None:
    cluster: Postgres | None = request.getfixturevalue("postgres") if engine == "postgresql" else None
    before = os.environ.get("LAUNCHER_LEDGER")
    try:
        run_state_machine_as_test(
            make_machine(cluster.database if cluster else None),
            settings=settings(
                # Each step on PostgreSQL is a dozen connections: fewer of them, for the same code.
                max_examples=max(3, EXAMPLES // 6) if cluster else EXAMPLES, stateful_step_count=30, deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
    finally:
        os.environ.update({"LAUNCHER_LEDGER": before} if before else {})
