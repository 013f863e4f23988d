"""A batch over two providers on one approval: real launcher, runners and ssh hosts; the cloud's bill is the judge."""

from __future__ import annotations

import json
import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rented import RentedGround

from launcher.ledger import LeaseState
from launcher.money import Usd
from launcher.runner.control import ask_to_stop
from recipes.contract import EVENTS, read_events
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "12")


def batch_of(ground: RentedGround, jobs: dict[str, int], text: str = "", **nature: Any) -> Path:
    """A batch file: so many jobs of one base at each provider, each with steps of its own."""
    lines = []
    for provider, count in jobs.items():
        name = ground.job(provider, name=f"{provider}.yaml", **nature).name
        lines += [f"  - {{job: {name}, with: {{spec.max_steps: {3 + n}}}}}\n" for n in range(count)]
    path = ground.fast.folder / "batch.yaml"
    path.write_text(f"budget: rented\ntotal_usd: 4\nconcurrency: 2\n{text}jobs:\n{''.join(lines)}")
    return path


def assert_paid_for(ground: RentedGround, runs: list[str], most: str = "4") -> None:
    """Nothing bills; the charges are the bill, within a billing step for each run, and inside the amount."""
    machines, ledger = ground.machines(), ground.ledger
    assert all(row["state"] == "terminated" for row in ground.cloud.bill()["machines"])
    assert {lease.state for lease in ledger.leases()} == {LeaseState.RELEASED}
    billed = sum((Decimal(str(row["usd"])) for row in machines), Decimal(0))
    charged = sum((ledger.spent(run) for run in runs), Usd(0))
    step = max(Decimal(str(row["usd_per_hour"])) * 2 / 3600 for row in machines)
    assert abs(billed - charged) <= step * len(runs), (billed, charged)
    assert max(billed, charged) <= Usd(most)
    assert not list((ground.launcher.home / "runs").glob("*/keys/*/key"))
    assert all(held.settled_at for held in ledger.reservations())


def training(ground: RentedGround, run: str) -> bool:
    events = read_events(ground.launcher.home / "runs" / run / EVENTS)
    return any(event.get("step") == "finetune" and event.get("at_step") for _, event in events)


def test_six_jobs_over_two_providers_are_packed_inside_one_amount(ground: RentedGround) -> None:
    path = batch_of(ground, {"runpod": 3, "vast": 3})
    code, outcome, err = ground.run("batch", path, "--confirm", "YES", "--max-cost", "4", timeout_s=560)
    assert code == 0, (outcome, err)
    assert err.count("to follow on the same machine") == 2, err
    assert [run["state"] for run in outcome["runs"]] == ["settled"] * 6
    assert sorted(row["provider"] for row in ground.machines()) == ["runpod", "vast"]
    runs = [run["run"] for run in outcome["runs"]]
    assert_paid_for(ground, runs)
    for run in runs:
        assert ground.ledger.spent(run) > 0
        receipt = json.loads((ground.launcher.home / "runs" / run / "receipt.json").read_text())
        assert receipt["training"]["steps"] == ground.ledger.run(run).plan["asked"]["max_steps"]
        assert (ground.launcher.home / "runs" / run / "adapted_model.nemo").exists()


def test_whoever_has_the_machine_may_die_and_goes_on_there(ground: RentedGround) -> None:
    path = batch_of(ground, {"vast": 3}, step_s=0.6)
    process = ground.start("batch", path, "--confirm", "YES", "--max-cost", "4")
    ledger = until(lambda: (ground.launcher.home / "ledger.sqlite").exists() and ground.ledger)
    ids = until(lambda: len(found := [run.run for run in ledger.runs()]) == 3 and found[::-1])
    for run in ids:
        until(lambda run=run: training(ground, run))
        held = json.loads((ground.launcher.home / "runs" / run / "runner.json").read_text())
        os.kill(held["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert [run["state"] for run in json.loads(out)["runs"]] == ["settled"] * 3
    assert len(ground.machines()) == 1
    assert_paid_for(ground, ids)


def test_where_the_first_is_stopped_the_others_share_a_machine_of_their_own(ground: RentedGround) -> None:
    path = batch_of(ground, {"runpod": 3}, step_s=0.6)
    process = ground.start("batch", path, "--confirm", "YES", "--max-cost", "4")
    ledger = until(lambda: (ground.launcher.home / "ledger.sqlite").exists() and ground.ledger)
    ids = until(lambda: len(found := [run.run for run in ledger.runs()]) == 3 and found[::-1])
    until(lambda: training(ground, ids[0]))
    ask_to_stop(ground.launcher.home / "runs" / ids[0], "collect")
    out, err = process.communicate(timeout=400)
    outcome = json.loads(out)
    assert process.returncode == 8, err
    assert [run["state"] for run in outcome["runs"]] == ["stopped", "settled", "settled"]
    assert len(ground.machines()) == 2
    assert_paid_for(ground, [run["run"] for run in outcome["runs"]])
