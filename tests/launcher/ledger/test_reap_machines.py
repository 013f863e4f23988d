import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.clock import iso
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.ssh import SshHost
from launcher.ledger import Caps, Lease, LeaseState, Ledger, RunState
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.base import Intent, Machine
from launcher.providers.registry import provider_named
from launcher.reaper import MARGIN, reap
from launcher.reaper.labels import UNSURE
from launcher.runner.control import runner_lock

REPO = Path(__file__).resolve().parents[3]
SCRIPTED = REPO / "tests" / "launcher" / "scripted"
CAPS = Caps("interactive", Usd(50), Usd(100), Usd(500), concurrent_runs=99, time_zone="UTC")
OFFER = Offer(provider="scripted", offer_id="s1", gpu="RTX 4090", count=1, vram_gb=24, usd_per_hour=Usd("0.40"))


class Clock:
    """Time that moves only when a test, or a wait, moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Ground:
    """A ledger, and machines at a provider that keeps its own bill."""

    def __init__(self, home: Home, clock: Clock, script: Path) -> None:
        self.home, self.clock, self.script = home, clock, script
        self.ledger = Ledger.open(home, clock)
        self.provider = provider_named("scripted", home, clock)

    def rent(self, key: str, *, on: str = "scripted", hours: float = 8.0, ceiling: str = "2.00") -> Lease:
        """A run that has a machine and works on it, as its runner left it."""
        run, _ = self.ledger.create_run(key, {"deadline_h": hours}, "d")
        self.ledger.move_run(run.run, RunState.APPROVED)
        self.ledger.reserve(run.run, CAPS, Usd(ceiling))
        for state in (RunState.RESERVED, RunState.RUNNING):
            self.ledger.move_run(run.run, state)
        ends = self.clock.now() + timedelta(hours=hours)
        free = on == "local"
        lease = self.ledger.intend_lease(
            run.run, provider=on, account="a", offer_id="s1", max_usd_per_hour=Usd(0 if free else "0.40"),
            reserved=Usd(ceiling), deadline=ends.isoformat().replace("+00:00", ".000Z"),
        )  # fmt: skip
        provider = provider_named(on, self.home, self.clock)
        machine = provider.create(
            Intent(lease.label, OFFER, lease.max_usd_per_hour, lease.deadline, lease.reserved_usd)
        )
        return self.ledger.move_lease(lease.lease, LeaseState.CREATED, machine={"ref": machine.ref})

    def machines(self) -> set[str]:
        """What is rented, by the provider's own word."""
        return {machine.label for machine in self.provider.listing().machines}

    def says(self, **script: object) -> None:
        self.script.write_text(json.dumps(script))


@pytest.fixture
def ground(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    script = tmp_path / "script.json"
    monkeypatch.setenv("LAUNCHER_SCRIPT", str(script))
    monkeypatch.syspath_prepend(str(SCRIPTED))
    made = Ground(home, Clock(), script)
    made.says(fractions=[0.5])
    return made


def test_a_machine_is_released_in_the_same_sweep_whatever_its_wiping_comes_to(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = ground.rent("key")
    for state in (LeaseState.ARMED, LeaseState.STAGED):
        ground.ledger.move_lease(lease.lease, state)
    key = LeaseKeys(ground.home.run_dir(lease.run) / "keys" / lease.lease).private
    key.parent.mkdir(parents=True)
    key.touch()
    private = SimpleNamespace(allowed=SimpleNamespace(sensitivity="phi"))
    monkeypatch.setattr("launcher.plan.plan_of", lambda run, plan: private)

    def connect(self: object, machine: object, keys: object) -> None:
        raise TypeError("a reply that nobody thought of")

    monkeypatch.setattr(type(ground.provider), "connect", connect)
    ground.clock.time += timedelta(hours=8, seconds=1)
    told = reap(ground.home, ground.ledger, ground.clock)
    assert [fact["wiped"] for fact in told.released] == [False]
    assert ground.machines() == set()
    assert any("phi data was not removed before its release (TypeError)" in note for note in told.notes)


def test_what_nobody_foresaw_at_one_machine_keeps_no_other_from_being_released(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (ground.rent(f"key {number}") for number in range(3))
    destroy = type(ground.provider).destroy

    def refuses_one(self: object, machine: Machine) -> None:
        if machine.label == second.label:
            raise TypeError("a reply that nobody thought of")
        destroy(self, machine)

    ground.clock.time += timedelta(hours=8, seconds=1)
    with monkeypatch.context() as patched:
        patched.setattr(type(ground.provider), "destroy", refuses_one)
        told = reap(ground.home, ground.ledger, ground.clock)
    assert {fact["label"] for fact in told.released} == {first.label, third.label}
    assert [fact["label"] for fact in told.pending] == [second.label]
    assert "TypeError: a reply that nobody thought of" in told.pending[0]["why"]
    assert ground.machines() == {second.label}
    assert [fact["label"] for fact in reap(ground.home, ground.ledger, ground.clock).released] == [second.label]
    assert ground.machines() == set()


@pytest.mark.parametrize("word", ["[]", '"ended"', '{"state": "ended"}', '{"state": "ended", "t": 1e99}', "[" * 9999])
def test_whatever_a_machine_says_of_its_end_is_no_reason_to_let_it_bill(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    lease = ground.rent("key")
    (ground.home.run_dir(lease.run) / "keys" / lease.lease).mkdir(parents=True)
    host = object.__new__(SshHost)
    monkeypatch.setattr(SshHost, "answers", lambda self, within_s: True)
    monkeypatch.setattr(SshHost, "read", lambda self, path, offset, most: word)
    monkeypatch.setattr(type(ground.provider), "connect", lambda self, machine, keys: host)
    ground.clock.time += timedelta(hours=8, seconds=1)
    assert [fact["label"] for fact in reap(ground.home, ground.ledger, ground.clock).released] == [lease.label]
    assert ground.machines() == set()


def test_a_machine_past_its_deadline_is_released_charged_and_settled(ground: Ground) -> None:
    lease = ground.rent("key")
    ground.clock.time += timedelta(hours=8, seconds=1)
    done = reap(ground.home, ground.ledger, ground.clock)
    assert [fact["label"] for fact in done.released] == [lease.label]
    assert done.released[0]["charged_usd"] == "1.00"
    assert len(done.released[0]["proof"]) == 2
    assert (ground.machines(), done.pending, done.unknown) == (set(), [], [])
    run = ground.ledger.run(lease.run)
    assert (run.state, run.exit_code) == (RunState.FAILED, 5)
    held = ground.ledger.reservation(lease.run)
    assert held is not None
    assert held.settled_at is not None
    assert ground.ledger.spent(lease.run) == Usd(1)
    again = reap(ground.home, ground.ledger, ground.clock)
    assert not any(vars(again).values())


def test_a_machine_within_its_deadline_is_left_for_resume(ground: Ground) -> None:
    lease = ground.rent("key")
    ground.clock.time += timedelta(hours=7)
    done = reap(ground.home, ground.ledger, ground.clock)
    assert [(fact["label"], fact["why"]) for fact in done.seen] == [
        (lease.label, f"its runner died: launcher resume {lease.run}")
    ]
    assert ground.machines() == {lease.label}


def test_the_machine_of_a_living_runner_is_spared_whatever_the_hour(ground: Ground) -> None:
    lease = ground.rent("key")
    ground.clock.time += timedelta(days=3)
    with runner_lock(ground.home.run_dir(lease.run)) as mine:
        assert mine
        done = reap(ground.home, ground.ledger, ground.clock)
    assert [fact["why"] for fact in done.seen] == ["its runner lives"]
    assert ground.machines() == {lease.label}


def test_a_run_that_is_over_but_was_not_released_is_released_at_once(ground: Ground) -> None:
    lease = ground.rent("key")
    ground.ledger.move_run(lease.run, RunState.FAILED, reason="the recipe failed", exit_code=5)
    done = reap(ground.home, ground.ledger, ground.clock)
    assert len(done.released) == 1
    assert ground.ledger.run(lease.run).reason == "the recipe failed"


@pytest.mark.parametrize("over", [True, False])
def test_a_machine_that_was_released_but_never_charged_is_charged(ground: Ground, over: bool) -> None:
    lease = ground.rent("key")
    ground.provider.destroy(ground.provider.listing().machines[0])
    ground.ledger.move_lease(lease.lease, LeaseState.RELEASING)
    ground.ledger.move_lease(lease.lease, LeaseState.RELEASED, proof=[f"{iso(ground.clock.now())} absent"] * 2)
    if over:
        ground.ledger.move_run(lease.run, RunState.FAILED, reason="killed here", exit_code=5)
    else:
        ground.clock.time += timedelta(hours=9)
    assert reap(ground.home, ground.ledger, ground.clock).released == []
    assert ground.ledger.spent(lease.run) == Usd(1)
    assert ground.ledger.holders("interactive") == []


def test_a_free_machine_is_never_taken_from_a_run_that_can_go_on(ground: Ground) -> None:
    lease = ground.rent("key", on="local", ceiling="0")
    ground.clock.time += timedelta(days=30)
    done = reap(ground.home, ground.ledger, ground.clock)
    assert "it costs nothing: launcher resume" in done.seen[0]["why"]
    assert (ground.home.boxes / lease.label).is_dir()
    ground.ledger.move_run(lease.run, RunState.STOPPED, reason="stopped", exit_code=130)
    assert len(reap(ground.home, ground.ledger, ground.clock).released) == 1
    assert not (ground.home.boxes / lease.label).exists()


def test_what_the_provider_does_not_release_stays_pending_and_held(ground: Ground) -> None:
    lease = ground.rent("key")
    ground.says(fractions=[0.5], refuse_release=2)
    ground.clock.time += timedelta(hours=9)
    for _ in range(2):
        done = reap(ground.home, ground.ledger, ground.clock)
        assert [fact["why"] for fact in done.pending] == ["scripted did not confirm that it is gone"]
        assert ground.ledger.holders("interactive") == [lease.run]
    assert len(reap(ground.home, ground.ledger, ground.clock).released) == 1
    assert ground.ledger.holders("interactive") == []


def test_no_more_than_max_machines_are_ended_in_one_go(ground: Ground) -> None:
    leases = [ground.rent(f"key{n}") for n in range(3)]
    ground.clock.time += timedelta(hours=9)
    done = reap(ground.home, ground.ledger, ground.clock, most=2)
    assert [fact["label"] for fact in done.released] == [lease.label for lease in leases[:2]]
    assert [fact["label"] for fact in done.pending] == [leases[2].label]
    assert "--max" in done.pending[0]["why"]
    assert ground.machines() == {leases[2].label}


def test_a_machine_that_no_ledger_knows_goes_once_its_own_label_says_so(ground: Ground) -> None:
    ours = "pl-dana-laptop-7f3a12-0badcafe-20261120T130000"
    for label in (ours, "somebody-elses", "pl-but-not-a-label"):
        ground.provider.create(Intent(label, OFFER, Usd("0.40"), "", Usd(1)))
    assert [fact["label"] for fact in reap(ground.home, ground.ledger, ground.clock).seen] == [ours]
    ground.clock.time += timedelta(hours=1) + UNSURE
    done = reap(ground.home, ground.ledger, ground.clock)
    assert [fact["label"] for fact in done.released] == [ours]
    assert ground.machines() == {"somebody-elses", "pl-but-not-a-label"}


def test_a_machine_that_came_back_after_its_release_is_ended_again(ground: Ground) -> None:
    lease = ground.rent("key")
    ground.ledger.move_run(lease.run, RunState.STOPPED, reason="stopped", exit_code=130)
    reap(ground.home, ground.ledger, ground.clock)
    ground.provider.create(Intent(lease.label, OFFER, Usd("0.40"), "", Usd(1)))  # a listing that lagged
    assert [fact["label"] for fact in reap(ground.home, ground.ledger, ground.clock).released] == [lease.label]
    assert ground.machines() == set()


def test_another_machines_rental_is_released_only_past_its_deadline(
    ground: Ground, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "sqlite":
        monkeypatch.setenv("LAUNCHER_LEDGER", f"sqlite:///{tmp_path}/team.sqlite")
    theirs = Ground(Home(ground.home.root), ground.clock, ground.script)
    lease = theirs.rent("key")
    local = theirs.rent("free", on="local", ceiling="0")
    (theirs.home.root / "place").write_text("another machine's")
    here = Ground(Home(ground.home.root), ground.clock, ground.script)
    assert not here.ledger.is_ours(here.ledger.run(lease.run))
    ground.clock.time += timedelta(hours=8) + MARGIN / 2
    done = reap(here.home, here.ledger, ground.clock)
    assert {fact["why"] for fact in done.seen} == {
        "another machine's, within its deadline", "on another machine: only that one can release it",
    }  # fmt: skip
    ground.clock.time += MARGIN
    done = reap(here.home, here.ledger, ground.clock)
    assert [fact["label"] for fact in done.released] == [lease.label]
    assert [fact["label"] for fact in done.seen] == [local.label]


def test_the_verb_says_what_may_still_bill_and_exits_with_6(ground: Ground) -> None:
    ground.says(refuse_release=1)
    ground.clock.time = datetime.now(UTC) - timedelta(hours=9)
    lease = ground.rent("key")
    command = [sys.executable, "-m", "launcher", "reap", "--home", str(ground.home.root)]
    path = {"PYTHONPATH": f"{REPO}:{SCRIPTED}"}

    def reaped(*more: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **path}
        return subprocess.run([*command, *more], capture_output=True, text=True, env=env, cwd=REPO, check=False)

    first = reaped()
    assert first.returncode == 6
    assert f"STILL BILLING? scripted {lease.label} (run {lease.run}) at $0.40/h" in first.stderr
    assert "To end it by hand: https://scripted.invalid/machines" in first.stderr
    second = reaped("--json")
    told = json.loads(second.stdout)
    assert second.returncode == 0
    assert [fact["label"] for fact in told["released"]] == [lease.label]
    assert told["pending"] == told["unknown"] == told["seen"] == []
    assert reaped().stdout == "nothing to reap\n"
