"""What the reaper ends where the ledger does not know it: by label, by the provider's clock, and never more."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import update
from test_reap_machines import OFFER, REPO, SCRIPTED, Clock, Ground

from launcher.errors import BadInputError
from launcher.home import Home
from launcher.ledger import LeaseState, Ledger, RunState, schema
from launcher.ledger.store import OWNER, owner
from launcher.money import Usd
from launcher.providers.base import Intent
from launcher.providers.live import ENDPOINTS
from launcher.reaper import MARGIN, Over, reap
from launcher.reaper.environment import over_of
from launcher.reaper.labels import UNSURE, Label
from launcher.runner.control import runner_lock, stop_asked

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINE, THEIRS, FOREIGN = (
    "pl-gha-77-1-aaaaaa-00000001-20261120T130000", "pl-dana-laptop-bbbbbb-00000002-20261120T130000", "training-box-3",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a ledger in its own file: one that can be lost."""
    return Home(tmp_path / "home")


@pytest.fixture
def ground(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    script = tmp_path / "script.json"
    monkeypatch.setenv("LAUNCHER_SCRIPT", str(script))
    monkeypatch.syspath_prepend(str(SCRIPTED))
    made = Ground(home, Clock(), script)
    made.says(fractions=[0.5])
    return made


def stand(ground: Ground, *labels: str) -> None:
    for label in labels:
        ground.provider.create(Intent(label, OFFER, Usd("0.40"), "", Usd(1)))


def labels(facts: list[dict[str, object]]) -> list[object]:
    return sorted(str(fact["label"]) for fact in facts)


def test_a_label_says_owner_run_and_deadline_and_what_is_none_is_foreign() -> None:
    label = Label.read(MINE)
    assert label is not None
    assert (label.owner, label.run, label.ends) == ("gha-77-1", "aaaaaa", NOON + timedelta(hours=1))
    for other in (FOREIGN, "pl-x", f"{MINE}x", f"x{MINE}", MINE.upper(), MINE.replace("1120T", "1140T"), f"{MINE}\n",
                  MINE.replace("gha", "\x1b[31mgha")):  # fmt: skip
        assert Label.read(other) is None, other


@pytest.mark.parametrize("over", [Over(owners=frozenset({"gha-77-1"})), Over(runs=frozenset({"aaaaaa"}))])
def test_what_is_known_to_be_over_goes_at_once_and_only_that(ground: Ground, over: Over) -> None:
    stand(ground, MINE, THEIRS, FOREIGN)
    done = reap(ground.home, ground.ledger, ground.clock, over=over)
    assert (labels(done.released), labels(done.seen)) == ([MINE], [THEIRS])
    assert ground.machines() == {THEIRS, FOREIGN}


def test_without_any_ledger_labels_alone_decide(ground: Ground) -> None:
    lease = ground.rent("key")
    stand(ground, MINE, FOREIGN)
    ground.clock.time += timedelta(hours=1) + UNSURE
    done = reap(ground.home, None, ground.clock)
    assert (labels(done.released), labels(done.seen)) == ([MINE], [lease.label])
    assert ground.machines() == {lease.label, FOREIGN}


def test_more_than_the_limit_by_label_alone_is_a_mistake_until_somebody_says_so(ground: Ground) -> None:
    many = [f"pl-ci-{n:06x}-00000001-20261120T130000" for n in range(4)]
    stand(ground, *many, FOREIGN)
    ground.clock.time += timedelta(days=1)
    done = reap(ground.home, ground.ledger, ground.clock, most=3)
    assert (done.released, labels(done.pending)) == ([], many)
    assert "4 machines would be ended by their label alone, more than --max 3" in str(done.pending[0]["why"])
    assert labels(reap(ground.home, ground.ledger, ground.clock, most=4).released) == many
    assert ground.machines() == {FOREIGN}


def test_an_owner_or_a_run_that_could_name_more_than_was_meant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for runs, owners in ((("a*",), ()), (("",), ()), ((), ("",)), ((), ("a" * 25,)), ((), ("dana@laptop",))):
        with pytest.raises(BadInputError):
            over_of(runs, owners)
    monkeypatch.setenv(OWNER, "gha-12345678901-1")
    assert owner() == "gha-12345678901-1"
    monkeypatch.setenv(OWNER, "an-owner-whose-name-is-cut-short")
    with pytest.raises(BadInputError):
        owner()


# -- clocks -------------------------------------------------------------------------------------------------


@pytest.fixture
def providers_clock(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """An endpoint of the scripted provider's, whose answers carry the time that it has."""
    theirs = Clock()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(theirs.now(), usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setitem(ENDPOINTS, "scripted", ("SCRIPTED_URL", f"http://127.0.0.1:{server.server_port}"))
    yield theirs
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("wrong", [-60, 60])
def test_an_hour_off_the_reaper_judges_labels_by_the_providers_clock(
    ground: Ground, providers_clock: Clock, wrong: int
) -> None:
    stand(ground, MINE)
    providers_clock.time = NOON + timedelta(minutes=55)  # five minutes before its deadline
    ground.clock.time = providers_clock.time + timedelta(minutes=wrong)
    done = reap(ground.home, ground.ledger, ground.clock)
    assert (done.released, labels(done.seen)) == ([], [MINE])
    assert f"60 min {'ahead of' if wrong > 0 else 'behind'} scripted's" in done.notes[0]
    providers_clock.time = NOON + timedelta(hours=1) + MARGIN
    ground.clock.time = providers_clock.time + timedelta(minutes=wrong)
    assert labels(reap(ground.home, ground.ledger, ground.clock).released) == [MINE]


@pytest.mark.parametrize("wrong", [-60, 60])
def test_an_hour_off_a_run_of_the_ledgers_keeps_the_time_that_it_was_given(
    ground: Ground, providers_clock: Clock, wrong: int
) -> None:
    lease = ground.rent("key", hours=2)
    providers_clock.time += timedelta(hours=1, minutes=59)
    ground.clock.time = providers_clock.time + timedelta(minutes=wrong)
    assert labels(reap(ground.home, ground.ledger, ground.clock).seen) == [lease.label]
    providers_clock.time += timedelta(minutes=2)
    ground.clock.time = providers_clock.time + timedelta(minutes=wrong)
    assert labels(reap(ground.home, ground.ledger, ground.clock).released) == [lease.label]


def test_where_no_clock_but_ours_is_known_an_hour_more_is_waited(ground: Ground) -> None:
    stand(ground, MINE)
    ground.clock.time = NOON + timedelta(hours=2, minutes=5)  # of which one hour may not be true
    assert labels(reap(ground.home, ground.ledger, ground.clock).seen) == [MINE]


# -- ledgers that were lost ---------------------------------------------------------------------------------


def lose(ground: Ground, backup: Path | None = None) -> None:
    for path in ground.home.root.glob("ledger.sqlite*"):
        path.unlink()
    if backup is not None:
        shutil.copy(backup, ground.home.root / "ledger.sqlite")
    ground.ledger = Ledger.open(ground.home, ground.clock)


def started(ground: Ground, run: str) -> Path:
    """The run's folder as its runner leaves it."""
    with runner_lock(ground.home.run_dir(run)) as mine:
        assert mine
    return ground.home.run_dir(run)


def test_a_deleted_ledger_leaves_no_machine_behind_and_takes_none_from_a_living_runner(ground: Ground) -> None:
    ground.clock.time = datetime.now(UTC)
    lease = ground.rent("key")
    run_dir = started(ground, lease.run)
    stand(ground, FOREIGN)
    lose(ground)
    assert labels(reap(ground.home, ground.ledger, ground.clock).seen) == [lease.label]  # it died only just now
    ground.clock.time += MARGIN + timedelta(minutes=1)
    with runner_lock(run_dir):
        assert labels(reap(ground.home, ground.ledger, ground.clock).seen) == [lease.label]
    assert labels(reap(ground.home, None, ground.clock).seen) == [lease.label]  # it may be in the one that is down
    assert labels(reap(ground.home, ground.ledger, ground.clock).released) == [lease.label]
    assert ground.machines() == {FOREIGN}


def test_a_machine_that_was_handed_over_is_spared_while_whoever_has_it_lives(ground: Ground) -> None:
    ground.clock.time = datetime.now(UTC)
    lease = ground.rent("key")
    started(ground, lease.run)
    holder = started(ground, "cccccc")
    (holder / "keys" / lease.lease).mkdir(parents=True)
    lose(ground)
    ground.clock.time += MARGIN + timedelta(minutes=1)
    with runner_lock(holder):
        assert labels(reap(ground.home, ground.ledger, ground.clock).seen) == [lease.label]
    assert labels(reap(ground.home, ground.ledger, ground.clock).released) == [lease.label]


def test_a_ledger_of_yesterday_ends_nothing_that_lives_and_keeps_nothing_that_is_dead(
    ground: Ground, tmp_path: Path
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    ground.clock.time = yesterday
    old = ground.rent("old", hours=6)
    started(ground, old.run)
    with closing(sqlite3.connect(ground.home.root / "ledger.sqlite")) as held:
        held.execute("VACUUM INTO ?", (str(tmp_path / "backup.sqlite"),))
    ground.ledger.move_run(old.run, RunState.FAILED, reason="the recipe failed", exit_code=5)
    assert labels(reap(ground.home, ground.ledger, ground.clock).released) == [old.label]
    ground.clock.time = datetime.now(UTC)
    new = ground.rent("new")
    run_dir = started(ground, new.run)
    stand(ground, FOREIGN)
    lose(ground, tmp_path / "backup.sqlite")
    with runner_lock(run_dir):
        done = reap(ground.home, ground.ledger, ground.clock)
    assert (labels(done.released), labels(done.seen)) == ([old.label], [new.label])  # old: proven gone once more
    ground.clock.time += MARGIN + timedelta(minutes=1)
    assert labels(reap(ground.home, ground.ledger, ground.clock).released) == [new.label]
    assert ground.machines() == {FOREIGN}
    assert [str(lease.state) for lease in ground.ledger.leases()] == ["released"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_on_a_full_disk_machines_are_released_all_the_same_and_written_down_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        monkeypatch.setenv("LAUNCHER_SCRIPT", str(tmp_path / "script.json"))
        monkeypatch.syspath_prepend(str(SCRIPTED))
        ground = Ground(Home(disk / "home"), Clock(), tmp_path / "script.json")
        ground.says(fractions=[0.5])
        lease = ground.rent("key")
        stand(ground, FOREIGN)
        ground.clock.time += timedelta(hours=9)
        with (disk / "filler").open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"x" * 4096)
                except OSError:
                    break
        done = reap(ground.home, ground.ledger, ground.clock)
        assert ground.machines() == {FOREIGN}
        assert (labels(done.released), done.pending) == ([lease.label], [])
        assert any("the ledger cannot be used" in note for note in done.notes)
        (disk / "filler").unlink()
        again = reap(ground.home, ground.ledger, ground.clock)
        assert again.notes == []
        assert [str(held.state) for held in ground.ledger.leases()] == [str(LeaseState.RELEASED)]
        assert ground.ledger.holders("interactive") == []
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_ledger_that_is_no_ledger_keeps_the_verb_from_nothing_that_labels_say(ground: Ground) -> None:
    old, young = MINE, THEIRS.replace("20261120", f"{datetime.now(UTC) + timedelta(days=1):%Y%m%d}")
    stand(ground, old, young, FOREIGN)
    for path in ground.home.root.glob("ledger.sqlite*"):
        path.unlink()
    (ground.home.root / "ledger.sqlite").write_bytes(b"no database" * 999)
    env = {**os.environ, "PYTHONPATH": f"{REPO}:{SCRIPTED}"}
    argv = [sys.executable, "-m", "launcher", "reap", "--home", str(ground.home.root)]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=REPO, check=False)
    assert done.returncode == 0, done.stderr
    assert f"released scripted {old}" in done.stdout
    assert f"left alone scripted {young}" in done.stdout
    assert "Labels alone were gone by" in done.stderr
    assert ground.machines() == {young, FOREIGN}


def test_a_label_carries_the_deadline_by_the_providers_clock(ground: Ground) -> None:
    """A launcher whose clock is an hour slow writes what is true where everybody judges it."""
    run, _ = ground.ledger.create_run("key", {}, "d")
    rented = {"provider": "vast", "account": "a", "offer_id": "1", "max_usd_per_hour": Usd(1), "reserved": Usd(2)}
    ends = "2026-11-20T13:00:00.000Z"
    lease = ground.ledger.intend_lease(run.run, deadline=ends, label_ends="2026-11-20T14:00:00.000Z", **rented)
    assert (lease.deadline, Label.read(lease.label).ends) == (ends, NOON + timedelta(hours=2))  # type: ignore[union-attr]
    lease = ground.ledger.intend_lease(run.run, deadline=ends, **rented)
    assert Label.read(lease.label).ends == NOON + timedelta(hours=1)  # type: ignore[union-attr]


def test_the_end_of_the_run_that_first_had_a_machine_is_not_that_of_the_run_that_has_it_now(ground: Ground) -> None:
    lease, second = ground.rent("first"), ground.rent("second")
    with ground.ledger.writing() as db:  # as a hand-over leaves it: another run's, under its old label
        db.execute(update(schema.leases).where(schema.leases.c.lease == lease.lease).values(run=second.run))
    with runner_lock(ground.home.run_dir(second.run)):
        done = reap(ground.home, ground.ledger, ground.clock, over=Over(runs=frozenset({lease.run})))
    assert (done.released, done.pending, labels(done.seen)) == ([], [], sorted([lease.label, second.label]))
    assert stop_asked(ground.home.run_dir(second.run)) is None
    assert ground.machines() == {lease.label, second.label}
