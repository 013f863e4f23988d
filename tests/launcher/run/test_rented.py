"""Runs on rented machines, whole: real launcher, runner and ssh hosts; the simulated cloud's bill is the judge."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from rented import RentedGround

from launcher.ledger import LeaseState
from launcher.money import Usd
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "11")
YES = ("--confirm", "YES", "--max-cost", "3")


@pytest.mark.parametrize("provider", ["runpod", "vast", "brev"])
def test_a_job_is_rented_armed_staged_run_brought_home_and_released(ground: RentedGround, provider: str) -> None:
    code, outcome, err = ground.run("run", ground.job(provider), *YES)
    assert (code, outcome["state"], outcome["released"]) == (0, "settled", True), (outcome, err)
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])
    home = {Path(item["path"]).name: item for item in outcome["artifacts"]}
    model = Path(home["adapted_model.nemo"]["path"])
    assert hashlib.sha256(model.read_bytes()).hexdigest() == home["adapted_model.nemo"]["sha256"]
    (lease,) = ground.ledger.leases(outcome["run"])
    assert lease.state is LeaseState.RELEASED
    assert len(lease.proof or []) == 2
    (row,) = ground.machines()
    assert row["label"] == lease.label
    states = [event["kind"] for event in ground.ledger.events(outcome["run"]) if event["kind"].startswith("lease.")]
    order = ["intended", "created", "armed", "staged", "busy", "drained", "releasing", "released"]
    assert [name.removeprefix("lease.") for name in states if name != "lease.machine"] == order
    rows = [json.loads(line) for line in (model.parent / "offline_hyps.jsonl").read_text().splitlines()]
    assert rows
    assert all(Path(row["audio_filepath"]).is_file() for row in rows)  # the user's own, not the machine's


def states(ground: RentedGround, run: str) -> list[tuple[str, str]]:
    """Each lease of a run: (offer, the source of its charge)."""
    sources = [charge.source for charge in ground.ledger.charges(run)]  # one after another, as the leases
    return [(lease.offer_id, told) for lease, told in zip(ground.ledger.leases(run), sources, strict=True)]


def test_where_the_cheapest_is_sold_out_the_next_one_inside_the_approval_is_rented(ground: RentedGround) -> None:
    ground.cloud.fault("sold_out", provider="vast", listed=True)
    code, outcome, err = ground.run("run", ground.job("vast"), *YES)
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, err)
    (first, none), (second, rated) = states(ground, outcome["run"])
    assert (none, rated) == ("never created", "rate x time")
    assert first != second
    assert len(ground.machines()) == 1
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


def test_a_price_that_doubles_at_renting_is_released_at_once_and_the_next_one_tried(ground: RentedGround) -> None:
    ground.cloud.fault("price_change", provider="vast", factor=2.0)
    code, outcome, err = ground.run("run", ground.job("vast"), *YES)
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 2
    dear, _ = ground.ledger.leases(outcome["run"])
    assert Usd(str(dear.machine["usd_per_hour"])) > dear.max_usd_per_hour
    seen = [event["kind"] for event in ground.ledger.events(outcome["run"]) if event["lease"] == dear.lease]
    assert "lease.armed" not in seen  # nothing was sent there
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


def test_a_price_that_doubles_everywhere_ends_in_a_refusal(ground: RentedGround) -> None:
    ground.cloud.fault("price_change", provider="runpod", factor=2.0, count="always")
    code, outcome, err = ground.run("run", ground.job("runpod"), *YES)
    assert (code, outcome.get("state")) == (4, "refused"), (outcome, err)
    assert "approved; released at once" in outcome["reason"]
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


@pytest.mark.parametrize("fault", ["never_ssh", "never_boots"])
def test_a_machine_that_never_answers_is_released_and_the_next_one_tried(ground: RentedGround, fault: str) -> None:
    ground.cloud.fault(fault, provider="vast")
    code, outcome, err = ground.run("run", ground.job("vast", patience_s=20), *YES)
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 2
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


def test_where_none_ever_answers_the_run_ends_with_everything_released(ground: RentedGround) -> None:
    ground.cloud.fault("never_ssh", count="always")
    code, outcome, err = ground.run("run", ground.job("runpod", patience_s=10), *YES)
    assert (code, outcome["state"], outcome["released"]) == (5, "failed", True), (outcome, err)
    assert "it never answered within 10 s" in outcome["reason"]
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


@pytest.mark.parametrize("provider", ["runpod", "vast"])
def test_a_create_whose_answer_is_lost_is_adopted_not_repeated(ground: RentedGround, provider: str) -> None:
    ground.cloud.fault("error_after_create", provider=provider)
    ground.cloud.fault("listing_lag", provider=provider, seconds=4.0)
    code, outcome, err = ground.run("run", ground.job(provider), *YES)
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 1
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


def at(ground: RentedGround, process: Any, step: int) -> str:
    """Wait until the fine-tune of the one run has come so far; the run."""

    def far() -> str | None:
        assert process.poll() is None, process.communicate()
        for run in ground.ledger.runs() if (ground.launcher.home / "ledger.sqlite").exists() else []:
            file = ground.launcher.home / "runs" / run.run / "events.jsonl"
            rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            if any(int(row.get("at_step") or 0) >= step for row in rows):
                return run.run
        return None

    return str(until(far, 120))


@pytest.mark.parametrize(("provider", "seconds"), [("runpod", 60), ("vast", 20)])
def test_a_line_that_is_cut_in_training_is_waited_for(ground: RentedGround, provider: str, seconds: int) -> None:
    process = ground.start("run", ground.job(provider, steps=200, step_s=0.05), *YES)
    run = at(ground, process, 5)
    (machine,) = [row["id"] for row in ground.machines()]
    ground.cloud.fault("partition", machine=machine, seconds=seconds)
    out, err = process.communicate(timeout=300)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"]) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 1
    ground.assert_all_released(run, outcome["usd"]["ceiling"])


@pytest.mark.parametrize("when", ["upload", "download"])
def test_a_transfer_that_is_cut_is_gone_on_with(ground: RentedGround, when: str) -> None:
    """Two megabytes each way at 1 Mbit/s: 16 s of each, in the midst of which the line is gone for a minute."""
    ground.cloud.fault("slow_link", provider="runpod", mbit=1.0)
    process = ground.start("run", ground.job("runpod", steps=3, filler="x" * 2_000_000), *YES)
    if when == "upload":
        until(lambda: ground.launcher.home.joinpath("ledger.sqlite").exists() and any(
            lease.state is LeaseState.ARMED for lease in ground.ledger.leases()), 120)  # fmt: skip
    else:
        at(ground, process, 3)
    until(lambda: not threading.Event().wait(4.0))  # into the transfer
    (machine,) = [row["id"] for row in ground.machines()]
    ground.cloud.fault("partition", machine=machine, seconds=60)
    out, err = process.communicate(timeout=400)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"]) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 1
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


def test_a_host_that_dies_in_training_is_released_and_its_work_goes_on_elsewhere(ground: RentedGround) -> None:
    process = ground.start("run", ground.job("vast", steps=150, step_s=0.2), *YES, LAUNCHER_LINE_PATIENCE_S="15")
    run = at(ground, process, 20)
    file = ground.launcher.home / "runs" / run / "events.jsonl"
    until(lambda: '"kind": "kept"' in file.read_text())  # a checkpoint is here
    (machine,) = [row["id"] for row in ground.machines()]
    ground.cloud.fault("host_death", machine=machine)
    out, err = process.communicate(timeout=300)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"]) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 2
    ground.assert_all_released(run, outcome["usd"]["ceiling"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    begun = [row["message"] for row in rows if str(row.get("message", "")).startswith("begins after step")]
    assert begun[0] == "begins after step 0"
    assert int(begun[1].split()[-1]) >= 1  # not all of it is done again


def test_stop_now_ends_an_upload_at_once_and_releases(ground: RentedGround) -> None:
    ground.cloud.fault("slow_link", provider="runpod", mbit=0.1)
    process = ground.start("run", ground.job("runpod"), *YES)
    until(lambda: ground.launcher.home.joinpath("ledger.sqlite").exists() and any(
        lease.state is LeaseState.ARMED for lease in ground.ledger.leases()), 120)  # fmt: skip
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"]) == (130, "cancelled"), (outcome, err)
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


@pytest.mark.parametrize("wish", ["stop", "trim", "ask"])
def test_a_training_three_times_over_the_ceiling_ends_inside_it(ground: RentedGround, wish: str) -> None:
    """Steps that say they take a minute each, of which the approved amount buys some; nobody watches, to be asked."""
    job = ground.job("runpod", steps=400, step_s=0.2, says_s=60.0, text=f"on_overrun: {wish}\n")
    code, outcome, err = ground.run("run", job, *YES)
    assert (code, outcome.get("state")) == (8, "stopped"), (outcome, err)
    run_dir = ground.launcher.home / "runs" / outcome["run"]
    made = json.loads((run_dir / "adapted_model.nemo").read_text())["trained"]
    rows = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    forecast = next(row for row in rows if row["kind"] == "forecast")
    assert forecast["breaks"] is True
    assert Usd(forecast["usd_p50"]) > 2 * Usd(outcome["usd"]["ceiling"])
    if wish == "trim":
        trimmed = json.loads((run_dir / "TRIM.json").read_text())["max_steps"]
        assert made == trimmed  # a finished model, on the schedule that the amount buys
        assert outcome["scores"]["after"]
    else:
        assert "the forecast breaks what was approved" in outcome["reason"]
    assert 10 <= made < 400
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


def test_a_runner_that_is_killed_is_resumed_on_the_same_machine(ground: RentedGround) -> None:
    alone = {"LAUNCHER_WITHOUT": "sentinel"}
    process = ground.start("run", ground.job("vast", steps=100, step_s=0.1), *YES, **alone)
    run = at(ground, process, 5)
    runner = json.loads((ground.launcher.home / "runs" / run / "runner.json").read_text())["pid"]
    os.kill(runner, signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 6, out  # nobody lives who releases it: that may still bill
    (row,) = ground.machines()
    assert row["state"] == "running"
    code, outcome, err = ground.run("resume", run)
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, err)
    assert len(ground.machines()) == 1
    ground.assert_all_released(run, outcome["usd"]["ceiling"])
