"""A batch over two providers on one approval: real launcher, runners and ssh hosts; the cloud's bill is the judge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal

import pytest
from fast import FastGround
from jobs import Launcher
from rented import RentedGround, lower, raise_with_image

from launcher.money import Usd
from tests.cloud.conftest import Standing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("batch")
    held = raise_with_image(folder / "state", folder, "--seed", "12")
    try:
        yield held
    finally:
        lower(held)


def test_six_jobs_over_two_providers_stay_inside_one_amount(
    standing: Standing, fast: FastGround, launcher: Launcher
) -> None:
    ground = RentedGround(fast, launcher, standing)
    names = []
    for n in range(6):
        names.append(f"job{n}.yaml")
        ground.job("vast" if n % 2 else "runpod", steps=3 + n, name=names[-1])
    batch = fast.folder / "batch.yaml"
    jobs = "".join(f"  - job: {name}\n" for name in names)
    batch.write_text(f"budget: rented\ntotal_usd: 4\nconcurrency: 2\njobs:\n{jobs}")
    code, outcome, err = ground.run("batch", batch, "--confirm", "YES", "--max-cost", "4", timeout_s=560)
    assert code == 0, (outcome, err)
    assert [run["state"] for run in outcome["runs"]] == ["settled"] * 6
    machines = ground.machines()
    assert {row["provider"] for row in machines} == {"runpod", "vast"}
    assert all(row["state"] == "terminated" for row in machines)
    billed = sum((Decimal(str(row["usd"])) for row in machines), Decimal(0))
    charged = sum((ground.ledger.spent(run["run"]) for run in outcome["runs"]), Usd(0))
    assert max(billed, charged) <= Usd(4)
    assert abs(billed - charged) <= Usd("0.01")
