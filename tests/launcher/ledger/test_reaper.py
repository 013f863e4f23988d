import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from launcher.home import Home
from launcher.ledger import Caps, LeaseState, Ledger, RunState
from launcher.money import ZERO, Usd
from launcher.reaper import GRACE, MARGIN, reap_quietly
from launcher.runner.control import runner_lock

CAPS = Caps("interactive", Usd(5), Usd(10), Usd(50), concurrent_runs=9, time_zone="UTC")
HOLDER = (
    "import sys; from pathlib import Path; from launcher.runner.control import runner_lock\n"
    "with runner_lock(Path(sys.argv[1])) as mine: print(mine, flush=True); sys.stdin.read()"
)


class Clock:
    """Time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(home: Home, clock: Clock) -> Ledger:
    return Ledger.open(home, clock)


def reserved(ledger: Ledger, key: str = "key") -> str:
    run, _ = ledger.create_run(key, {"deadline_h": 12.0}, "d")
    ledger.move_run(run.run, RunState.APPROVED)
    ledger.reserve(run.run, CAPS, Usd(5))
    ledger.move_run(run.run, RunState.RESERVED)
    return run.run


def leased(ledger: Ledger, run: str) -> str:
    return ledger.intend_lease(
        run, provider="vast", account="a", offer_id="1", max_usd_per_hour=Usd(1), reserved=Usd(5),
        deadline="2026-11-20T20:00:00.000Z",
    ).lease  # fmt: skip


@contextmanager
def living_runner(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the runner's lock; killed at the end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run_dir)], **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "True\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("last", [RunState.PLANNED, RunState.APPROVED, RunState.RESERVED, RunState.RUNNING])
def test_what_a_dead_launcher_held_is_free_again(home: Home, ledger: Ledger, clock: Clock, last: RunState) -> None:
    run, _ = ledger.create_run("key", {}, "d")
    order = [RunState.PLANNED, RunState.APPROVED, RunState.RESERVED, RunState.RUNNING]
    for state in order[1 : order.index(last) + 1]:
        if state is RunState.RESERVED:
            ledger.reserve(run.run, CAPS, Usd(5))
        ledger.move_run(run.run, state)
    clock.time += GRACE
    freed = reap_quietly(home, ledger, clock)
    assert [(each["run"], each["why"]) for each in freed] == [(run.run, f"its launcher died while it was {last}")]
    ended = ledger.run(run.run)
    assert (ended.state, ended.exit_code) == (RunState.CANCELLED, 130)
    assert ended.outcome is not None
    assert ended.outcome["released"] is True
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd(10)
    assert reap_quietly(home, ledger, clock) == []
    assert ledger.create_run("key", {}, "d")[1]


def test_a_launcher_that_is_still_starting_is_spared(home: Home, ledger: Ledger, clock: Clock) -> None:
    run = reserved(ledger)
    clock.time += GRACE - timedelta(seconds=1)
    assert reap_quietly(home, ledger, clock) == []
    assert ledger.holders("interactive") == [run]


def test_a_living_runner_is_spared_and_a_killed_one_is_not(home: Home, ledger: Ledger, clock: Clock) -> None:
    alive, dead = reserved(ledger, "alive"), reserved(ledger, "dead")
    clock.time += timedelta(days=1)
    with living_runner(home.run_dir(dead)):
        assert reap_quietly(home, ledger, clock)[0]["run"] == alive  # nobody holds its lock yet
    alive = reserved(ledger, "alive")
    clock.time += timedelta(days=1)
    with living_runner(home.run_dir(alive)):
        assert [each["run"] for each in reap_quietly(home, ledger, clock)] == [dead]
        assert ledger.holders("interactive") == [alive]


def test_a_runner_that_starts_while_it_is_reaped_finds_its_run_ended(
    home: Home, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reserved(ledger)
    clock.time += GRACE
    taken = []
    abandon = Ledger.abandon

    def as_a_runner_comes(self: Ledger, run_id: str, reason: str) -> bool:
        with runner_lock(home.run_dir(run)) as mine:
            taken.append(mine)
        return abandon(self, run_id, reason)

    monkeypatch.setattr(Ledger, "abandon", as_a_runner_comes)
    reap_quietly(home, ledger, clock)
    assert taken == [False]
    assert ledger.run(run).over


def test_a_run_that_holds_a_machine_is_left_to_those_who_release(home: Home, ledger: Ledger, clock: Clock) -> None:
    run = reserved(ledger)
    ledger.move_run(run, RunState.RUNNING)
    leased(ledger, run)
    clock.time += timedelta(days=3)
    assert reap_quietly(home, ledger, clock) == []
    assert ledger.holders("interactive") == [run]
    assert not ledger.abandon(run, "by mistake")


@pytest.mark.parametrize("last", [RunState.COLLECTED, RunState.FAILED])
def test_a_run_that_died_before_it_settled_is_settled_at_its_charges(
    home: Home, ledger: Ledger, clock: Clock, last: RunState
) -> None:
    run = reserved(ledger)
    ledger.move_run(run, RunState.RUNNING)
    lease = leased(ledger, run)
    released = ledger.move_lease(lease, LeaseState.RELEASED)
    ledger.move_run(run, last, reason="the recipe failed", exit_code=5)
    clock.time += GRACE
    assert reap_quietly(home, ledger, clock) == []  # nobody has said yet what the machine cost
    ledger.charge(released, Usd("1.25"), "rate x time")
    assert [each["why"] for each in reap_quietly(home, ledger, clock)] == ["its runner died before it settled"]
    assert ledger.remaining(CAPS)["per_day_usd"] == Usd("8.75")
    assert ledger.run(run).state is last
    assert reap_quietly(home, ledger, clock) == []


def test_another_machines_run_is_touched_only_past_its_deadline(
    tmp_path: Path, home: Home, clock: Clock, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "sqlite":
        monkeypatch.setenv("LAUNCHER_LEDGER", f"sqlite:///{tmp_path}/team.sqlite")
    elsewhere = Home(tmp_path / "elsewhere")
    theirs, ours = Ledger.open(elsewhere, clock), Ledger.open(home, clock)
    run = reserved(theirs)
    assert theirs.is_ours(theirs.run(run))
    assert not ours.is_ours(ours.run(run))
    clock.time += timedelta(hours=12) + MARGIN
    assert reap_quietly(home, ours, clock) == []
    assert ours.holders("interactive") == [run]
    clock.time += timedelta(seconds=1)
    assert [each["why"] for each in reap_quietly(home, ours, clock)] == ["another machine's, and past its deadline"]
    assert ours.holders("interactive") == []


def test_a_run_at_no_cost_is_ended_too_and_holds_nothing(home: Home, ledger: Ledger, clock: Clock) -> None:
    run, _ = ledger.create_run("key", {}, "d")
    ledger.reserve(run.run, CAPS, ZERO)
    clock.time += GRACE
    assert [each["reserved_usd"] for each in reap_quietly(home, ledger, clock)] == ["0.00"]
    assert reap_quietly(home, ledger, clock) == []
