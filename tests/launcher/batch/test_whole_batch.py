"""Whole batches: real runners, the scripted provider's bill as the oracle, killed, resumed, across midnight."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from real_postgres import running_postgres
from whole import FAKETIME, FakeClock, Sweep, ended, kill, killed_at_the_end, sleeps

from launcher.batch.file import load_batch
from launcher.batch.scheduler import Scheduler, Terms
from launcher.batch.terms import Covered
from launcher.clock import SystemClock
from launcher.home import Home
from launcher.ledger import Caps, Ledger, RunState
from launcher.money import Usd
from launcher.plan import Wishes
from tests.patience import until

TEN = ("--confirm", "YES", "--max-cost", "10")
ZURICH = ZoneInfo("Europe/Zurich")
CAPS = Caps("lab", Usd(5), Usd(6), Usd(50), 4, "Europe/Zurich")
needs_faketime = pytest.mark.skipif(
    not any(path.exists() for path in FAKETIME), reason="needs the Debian package faketime: apt-get install faketime"
)


def utc(day: int, hour: int, minute: int) -> datetime:
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC)


@needs_faketime
def test_ten_dollars_over_twelve_jobs_hold_across_two_kills_midnight_and_the_end_of_summer_time(sweep: Sweep) -> None:
    sweep.budget(day="4.00")
    sweep.file("total_usd: 10\nwait_hours: 30\n")
    clock = FakeClock(sweep.folder, utc(24, 21, 50))  # 23:50 in Zurich, CEST
    seen: list[Decimal] = []

    def held() -> None:
        committed, billed = sweep.committed(), sweep.billed()
        assert committed <= 10, f"the ledger had ${committed} out"
        assert billed <= 10, f"the provider will bill ${billed}"
        seen.append(committed)

    launcher = sweep.batch(*TEN, **clock.env)
    until(lambda: len(sweep.created()) >= 2, name="two machines rented", also=held)
    kill(launcher)
    launcher = sweep.batch(**clock.env)  # no YES this time
    until(lambda: len(sweep.created()) >= 3, name="a third", also=held)
    kill(launcher)
    first_night = len(sweep.created())

    launcher = sweep.batch(**clock.env)
    with killed_at_the_end(launcher):
        until(lambda: "wait until 2026-10-25 00:00 Europe/Zurich" in sweep.said(), name="the day's money", also=held)
        spent_first = len(sweep.created())
        assert first_night <= spent_first < 12

        clock.jump(utc(24, 22, 0))  # midnight
        until(lambda: "wait until 2026-10-26 00:00 Europe/Zurich" in sweep.said(), name="the second's", also=held)
        spent_second = len(sweep.created())
        assert spent_first < spent_second < 12

        clock.jump(utc(25, 22, 30))  # 24.5 h later the clocks say 23:30: it is the same day, of 25 hours
        before = sleeps(launcher.pid)
        until(lambda: sleeps(launcher.pid) > before + 100, name="it looked at the clock again and again", also=held)
        assert len(sweep.created()) == spent_second

        clock.jump(utc(25, 23, 0))
        until(partial(ended, launcher), name="the end", also=held)
        code, outcome, err = sweep.ended(launcher)
    held()
    assert len(sweep.created()) > spent_second
    by_day: Counter[object] = Counter()
    for line in sweep.bill():
        if line["event"] == "end":
            by_day[datetime.fromisoformat(line["at"]).astimezone(ZURICH).date()] += Decimal(line["usd"])  # type: ignore[assignment]
    assert len(by_day) == 3
    assert all(usd <= 4 for usd in by_day.values()), by_day
    per_item = Counter(item for _, state, item in sweep.runs() if state == "settled")
    assert set(per_item.values()) == {1}, "a job ran twice"
    assert len(per_item) == len(sweep.created()) == len(outcome["runs"])
    assert len(outcome["runs"]) + len(outcome["refused"]) == 12, err
    assert outcome["deferred"] == []
    assert Decimal(outcome["usd"]["charged"]) == sweep.billed() <= 10
    assert code == (4 if outcome["refused"] else 0)
    assert max(seen) > 3  # it was looked at while it happened
    again, told, _ = sweep(**clock.env)
    assert (again, told["runs"]) == (code, outcome["runs"])
    assert len(sweep.created()) == len(outcome["runs"])


def test_deferred_jobs_run_as_reservations_settle_and_the_money_is_used(sweep: Sweep) -> None:
    sweep.budget(day="20.00", at_once=12)
    sweep.file("total_usd: 4\n")
    launcher = sweep.batch("--confirm", "YES", "--max-cost", "4.00")
    with killed_at_the_end(launcher):
        until(partial(ended, launcher), name="the end", also=lambda: _under(sweep, Decimal(4)))
        code, outcome, err = sweep.ended(launcher)
    # Three ceilings of about $1.42 do not fit into $4; the third job ran because another had settled for less.
    assert len(outcome["runs"]) >= 3, err
    assert sweep.billed() <= 4
    assert Decimal(4) - sweep.billed() < Decimal("1.45")  # what is left would hold no further job
    assert len(outcome["refused"]) == 12 - len(outcome["runs"])
    assert all("the batch's money does not reach" in each["why"] for each in outcome["refused"])
    assert code == 4


def _under(sweep: Sweep, most: Decimal) -> None:
    assert sweep.committed() <= most
    assert sweep.billed() <= most


TWO = "jobs:\n  - base.yaml\n  - {job: base.yaml, name: longer, with: {spec.max_steps: 6}}\n"


@pytest.mark.parametrize(
    ("approval", "code", "words"),
    [
        ((), 3, "no terminal"),
        (("--confirm", "YES"), 3, "approves no amount"),
        (("--confirm", "yes", "--max-cost", "10"), 3, "exactly YES"),
        (("--max-cost", "10"), 3, "is missing"),
        (("--confirm", "YES", "--max-cost", "9.99"), 3, "approves no ceiling of $10"),
        (("--confirm", "YES", "--max-cost", "ten"), 2, "not an amount"),
    ],
)
def test_a_wrong_approval_reserves_nothing_and_leaves_no_batch(
    sweep: Sweep, approval: tuple[str, ...], code: int, words: str
) -> None:
    sweep.file("total_usd: 10\n", TWO)
    got, outcome, err = sweep(*approval)
    assert got == code, err
    assert words in outcome["error"]["message"]
    assert sweep.runs() == []
    assert sweep.ledger("select * from batches") == []
    assert sweep.bill() == []


def test_one_failure_keeps_no_other_job_from_running_and_decides_the_exit_code(sweep: Sweep) -> None:
    diverges = {"exit": 12, "say": "it diverged"}
    sweep.ground.job(5, "resources: {providers: [scripted]}\n", "bad.yaml", finetune=diverges)
    sweep.file("", "jobs: [bad.yaml, base.yaml]\n")
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5")
    assert code == 5, err
    assert [(run["job"], run["state"], run["exit"]) for run in outcome["runs"]] == [
        ("bad", "failed", 5), ("base", "settled", 0),
    ]  # fmt: skip
    assert "diverged" in outcome["runs"][0]["why"]
    assert outcome["runs"][1]["best"] is True
    assert Decimal(outcome["runs"][1]["usd_per_point"]) > 0
    summary = Path(outcome["summary"]).read_text()
    assert "| bad |" in summary
    assert "**base** (best)" in summary


def test_the_same_job_twice_is_one_run_and_one_that_can_never_fit_is_refused_the_other_goes_on(sweep: Sweep) -> None:
    sweep.ground.job(5, "resources: {providers: [scripted], gpus: [H100]}\n", "large.yaml")
    sweep.file("", "jobs:\n  - large.yaml\n  - base.yaml\n  - {job: base.yaml, with: {spec.max_steps: 5}}\n")
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5")
    assert code == 4, err
    assert [run["job"] for run in outcome["runs"]] == ["base"]
    assert [each["job"] for each in outcome["refused"]] == ["large"]
    assert "H100" in outcome["refused"][0]["why"] or "asked for" in outcome["refused"][0]["why"]
    assert [each["as"] for each in outcome["same"]] == ["same as 2"]
    assert len(sweep.created()) == 1


def test_a_price_that_moves_out_of_the_approval_defers_and_a_later_one_inside_goes_on_without_a_yes(
    sweep: Sweep,
) -> None:
    sweep.budget(at_once=1)
    sweep.file("wait_hours: 0\n", TWO)
    launcher = sweep.batch("--confirm", "YES", "--max-cost", "5")
    with killed_at_the_end(launcher):
        until(sweep.created, name="the first")
        sweep.prices(f"{sweep.rate * Decimal('1.15'):.2f}")  # above the room of 10%, under the budget's rate
        code, outcome, err = sweep.ended(launcher)
    assert code == 4, err
    assert [run["state"] for run in outcome["runs"]] == ["settled"]
    (waits,) = outcome["deferred"]
    assert "outside what was approved" in waits["why"]
    sweep.prices(f"{sweep.rate + Decimal('0.01'):.2f}")
    code, outcome, err = sweep()
    assert code == 0, err
    assert [run["state"] for run in outcome["runs"]] == ["settled", "settled"]
    assert len(sweep.created()) == 2


def test_what_is_sold_out_for_now_is_deferred_and_runs_when_it_is_back(sweep: Sweep) -> None:
    sweep.budget(at_once=1)
    sweep.file("wait_hours: 0\n", TWO)
    launcher = sweep.batch("--confirm", "YES", "--max-cost", "5")
    with killed_at_the_end(launcher):
        until(sweep.created, name="the first")
        sweep.prices(sweep.rate, available=False)
        code, outcome, err = sweep.ended(launcher)
    assert (code, outcome["refused"]) == (4, []), err
    assert "sold out" in outcome["deferred"][0]["why"]
    sweep.prices(sweep.rate)
    code, outcome, err = sweep()
    assert code == 0, err
    assert len(sweep.created()) == 2


def test_without_a_total_the_amount_approved_beforehand_binds_the_batch(sweep: Sweep) -> None:
    sweep.file("", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [3, 4, 5]}\n")
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "2.50")
    assert code == 4, err
    assert outcome["usd"]["approved"] == "2.50"
    assert sweep.billed() <= Decimal("2.50")
    assert len(outcome["runs"]) + len(outcome["refused"]) == 3


def test_a_machine_that_this_launcher_cannot_rent_is_refused_before_anybody_is_asked(sweep: Sweep) -> None:
    sweep.budget(providers="[yotta]\n    allow_unproven: true")  # its prices are known, its key handed to nobody
    sweep.ground.job(5, "resources: {providers: [yotta]}\n", "base.yaml")
    sweep.prices("0.30", provider="yotta", trust="secure")
    sweep.file("", "jobs: [base.yaml]\n")
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5")
    assert code == 4, err
    assert "no job of the batch can run" in outcome["error"]["message"]
    assert "cannot rent at yotta" in outcome["refused"][0]["why"]
    assert "Free:" not in err
    assert sweep.ledger("select * from batches") == []


def test_money_that_another_run_of_the_budget_holds_is_waited_for_and_leaves_no_refused_runs(sweep: Sweep) -> None:
    sweep.budget(at_once=1)
    alone = sweep.ground.job(150, "resources: {providers: [scripted]}\n", "alone.yaml")
    offers = ("--offers", sweep.folder / "offers.json", "--json", "--confirm", "YES", "--max-cost", "5")
    code, _, err = sweep.ended(sweep.start("run", alone, "--detach", *offers))
    assert code == 0, err
    sweep.file("", "jobs: [base.yaml]\n")
    code, _, err = sweep("--confirm", "YES", "--max-cost", "5")
    assert code == 0, err
    assert "waits until a run settles: budget lab allows 1 at a time" in err
    assert [state for _, state, _ in sweep.runs()] == ["settled", "settled"]


def test_a_second_launcher_of_the_same_batch_is_refused_while_the_first_is_at_it(sweep: Sweep) -> None:
    sweep.file("", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [3000, 4000]}\n")
    first = sweep.batch("--confirm", "YES", "--max-cost", "5")
    with killed_at_the_end(first):
        until(sweep.created, name="the first")
        code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5")
        assert (code, "another launcher" in outcome["error"]["message"]) == (4, True), err
        first.send_signal(signal.SIGTERM)
        code, outcome, err = sweep.ended(first)
    assert code == 130, err
    assert {run["state"] for run in outcome["runs"]} <= {"cancelled", "stopped"}
    ends = [line for line in sweep.bill() if line["event"] == "end"]
    assert len(ends) == len(sweep.created())
    assert sweep.committed() == sweep.billed()


def test_jobs_on_this_machine_need_no_yes_and_run_one_after_another(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, providers="[local]")
    sweep.file("", TWO)
    code, outcome, err = sweep()
    assert code == 0, err
    assert [run["state"] for run in outcome["runs"]] == ["settled", "settled"]
    assert outcome["usd"]["approved"] == "0.00"
    assert {run["usd_per_point"] for run in outcome["runs"]} == {"0.00"}
    starts = [json.loads(line) for line in sweep.ground.trace.read_text().splitlines()]
    assert not [line for line in starts if line["word"] == "double"]


@pytest.mark.parametrize("seed", range(int(os.environ.get("LAUNCHER_TEST_KILLS", "1"))))
def test_killed_before_any_of_its_effects_again_and_again_no_job_starts_twice_and_no_yes_is_asked_again(
    sweep: Sweep, seed: int
) -> None:
    rng = random.Random(seed)
    sweep.budget(day="20.00", at_once=2)
    sweep.file("total_usd: 9\n", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [3, 4, 5, 6]}\n")
    lives = approved = 0
    while True:
        consent = () if approved else ("--confirm", "YES", "--max-cost", "9")
        process = sweep.batch(*consent, dies=rng.randint(3, 30) + 4 * lives)
        with killed_at_the_end(process):
            until(partial(ended, process), name="its death or its end", also=lambda: _under(sweep, Decimal(9)))
        if process.returncode != -signal.SIGKILL:
            break
        lives += 1
        assert "Traceback" not in sweep.said()
        approved = len(sweep.ledger("select * from events where kind = 'batch.terms'"))
        assert lives < 100
    code, outcome, err = sweep.ended(process)
    assert code == 0, err
    assert lives >= 3
    assert [run["state"] for run in outcome["runs"]] == ["settled"] * 4
    assert len(sweep.created()) == len(sweep.runs()) == 4
    assert Decimal(outcome["usd"]["charged"]) == sweep.billed()
    assert sweep.ground.starts("finetune") == 4


def test_a_runner_that_dies_in_a_batch_is_taken_up_again(sweep: Sweep) -> None:
    sweep.file("", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [300, 4]}\n")
    launcher = sweep.batch("--confirm", "YES", "--max-cost", "5")
    with killed_at_the_end(launcher):
        runner = until(lambda: next(sweep.home.glob("runs/*/runner.json"), None), name="a runner")
        until(sweep.ground.trace.exists, name="its recipe")
        os.kill(json.loads(runner.read_text())["pid"], signal.SIGKILL)
        code, outcome, err = sweep.ended(launcher)
    assert code == 0, err
    assert [run["state"] for run in outcome["runs"]] == ["settled", "settled"]
    assert len(sweep.created()) == 2


def test_a_release_that_cannot_be_proven_is_the_worst_that_happened(sweep: Sweep) -> None:
    sweep.script(fractions=[0.5], refuse_release=100)
    sweep.file("", "jobs: [base.yaml]\n")
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5", LAUNCHER_WITHOUT="sentinel")
    assert code == 6, err
    assert outcome["runs"][0]["exit"] == 6
    assert Decimal(outcome["usd"]["reserved"]) + Decimal(outcome["usd"]["charged"]) >= sweep.billed()


@needs_faketime
def test_it_never_waits_for_a_day_that_begins_after_its_patience_and_says_until_when_it_would_have_to(
    sweep: Sweep,
) -> None:
    clock = FakeClock(sweep.folder, utc(24, 10, 0))
    sweep.budget(day="2.00", at_once=1)
    sweep.script(fractions=[1.0])
    sweep.file("wait_hours: 2\n", TWO)
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5", **clock.env)
    assert code == 4, err
    assert len(outcome["runs"]) == len(outcome["deferred"]) == 1
    assert "wait until 2026-10-25 00:00 Europe/Zurich" in err or "waits until 2026-10-25 00:00" in err
    assert sweep.ledger("select state from batches") == [("live",)]
    clock.jump(utc(24, 22, 0))
    code, outcome, err = sweep(**clock.env)
    assert code == 0, err
    assert len(sweep.created()) == 2


def test_a_run_that_never_began_is_no_attempt_and_one_that_was_stopped_is(sweep: Sweep) -> None:
    sweep.file("", "jobs: [base.yaml]\n")
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5")
    assert code == 0, err
    home, clock = Home(sweep.home), SystemClock()
    ledger = Ledger.open(home, clock)
    (batch,) = ledger.batches()
    plan = ledger.run(outcome["runs"][0]["run"]).plan
    freed, _ = ledger.create_run("another key", plan, "digest", batch=batch.batch, item=1)
    ledger.abandon(freed.run, "its launcher died while it was planned")
    refused, _ = ledger.create_run("another key", plan, "digest", batch=batch.batch, item=2)
    ledger.move_run(refused.run, RunState.REFUSED, reason="no room", exit_code=4)
    gated, _ = ledger.create_run("another key", plan, "digest", batch=batch.batch, item=3)
    ledger.move_run(gated.run, RunState.REFUSED, reason="the gate says harden", exit_code=7)
    terms = Terms(load_batch(sweep.ground.folder / "sweep.yaml"), batch, CAPS, Covered({}, {}))
    assert set(Scheduler(terms, home, ledger, clock, Wishes(), print).runs()) == {0, 3}


def test_a_budget_that_is_none_is_refused_by_line_with_the_nearest(sweep: Sweep) -> None:
    sweep.file("total_usd: 5\nbudget: lap\n", TWO)
    code, outcome, _ = sweep()
    assert code == 2
    assert outcome["error"]["message"].startswith(str(sweep.ground.folder / "sweep.yaml:2  budget: "))
    assert "Did you mean lab?" in outcome["error"]["fix"]


def test_more_at_once_than_the_budget_allows_is_refused_by_line(sweep: Sweep) -> None:
    sweep.file("total_usd: 5\nconcurrency: 9\n", TWO)
    code, outcome, _ = sweep("--confirm", "YES", "--max-cost", "5")
    assert code == 2
    assert outcome["error"]["message"].startswith(str(sweep.ground.folder / "sweep.yaml:2"))
    assert "Write 4" in outcome["error"]["fix"]


def test_on_a_shared_ledger_another_machine_goes_on_where_the_first_was_killed(sweep: Sweep, tmp_path: Path) -> None:
    with running_postgres() as cluster:
        shared = {"LAUNCHER_LEDGER": cluster.database()}
        sweep.file("total_usd: 7\n", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [60, 70, 4, 5]}\n")
        sweep.budget(day="20.00", at_once=2)
        launcher = sweep.batch("--confirm", "YES", "--max-cost", "7", **shared)
        until(lambda: len(sweep.created()) >= 2, name="two machines rented")
        kill(launcher)
        sweep.home = tmp_path / "another home"
        code, outcome, err = sweep(**shared)
        assert code == 0, err
        assert [run["state"] for run in outcome["runs"]] == ["settled"] * 4
        assert len(sweep.created()) == 4
        assert Decimal(outcome["usd"]["charged"]) == sweep.billed() <= 7
