"""A real machine is not rented by accident: refused before anybody is asked for a YES, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fast import FastGround
from jobs import Launcher
from paid import PaidGround, offer

BUDGETS = """default: b
budgets: {b: {per_run_usd: 5, per_day_usd: 5, per_month_usd: 5, max_usd_per_hour: 2, providers: [runpod],
              approval: [typed, preapproved]}}
"""


@pytest.fixture
def ground(fast: FastGround, launcher: Launcher) -> PaidGround:
    made = PaidGround(fast, launcher, BUDGETS)
    made.offer({**offer("NVIDIA L40S/secure", gpu="L40S"), "provider": "runpod", "vram_gb": 48})
    return made


@pytest.mark.parametrize(("url", "allowed"), [("", ""), ("https://api.runpod.io", ""), ("", "yes")])
def test_renting_at_a_live_endpoint_is_refused_and_nothing_is_reserved(
    ground: PaidGround, tmp_path: Path, url: str, allowed: str
) -> None:
    job = ground.fast.job(text="resources: {providers: [runpod], via: direct}\n")
    code, outcome, err = ground.run(
        "run", job, "--offers", ground.offers_file, "--confirm", "YES", "--max-cost", "3", HOME=str(tmp_path),
        RUNPOD_API_KEY="planted-0123456789", RUNPOD_API_BASE_URL=url, LAUNCHER_ALLOW_LIVE=allowed,
    )  # fmt: skip
    said = json.dumps(outcome)
    assert code == 4, err
    assert "is not open yet" in said
    assert "LAUNCHER_ALLOW_LIVE=1" in said
    assert "make rehearse" in said
    ground.assert_nothing_happened()


def test_nothing_real_is_rented_with_a_layer_switched_off(ground: PaidGround, tmp_path: Path) -> None:
    job = ground.fast.job(text="resources: {providers: [runpod], via: direct}\n")
    code, outcome, err = ground.run(
        "run", job, "--offers", ground.offers_file, "--confirm", "YES", "--max-cost", "3", HOME=str(tmp_path),
        RUNPOD_API_KEY="planted-0123456789", RUNPOD_API_BASE_URL="", LAUNCHER_ALLOW_LIVE="1",
        LAUNCHER_WITHOUT="watchdog,sentinel",
    )  # fmt: skip
    assert code == 4, err
    assert "nothing real is rented without sentinel and watchdog" in json.dumps(outcome)
    ground.assert_nothing_happened()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [("finetune", "nothing can be rented at lambda from here: no key"),  # so they could be, with one
     ("evaluate", "only training is spread over several machines: evaluate would use one of 2")],
)  # fmt: skip
def test_several_machines_as_one_job_are_rented_to_train_alone(
    ground: PaidGround, tmp_path: Path, recipe: str, words: str
) -> None:
    budgets = BUDGETS.replace("providers: [runpod]", "providers: [lambda], allow_unproven: true")
    (ground.fast.folder / "budgets.yaml").write_text(budgets, encoding="utf-8")
    ground.offer({**offer("gpu_1x_a10", gpu="A10"), "provider": "lambda", "via": "skypilot"})
    job = ground.fast.job(text="resources: {providers: [lambda], nodes: 2}\n")
    if recipe == "evaluate":
        told = job.read_text().replace("recipe: finetune", "recipe: evaluate").replace("base:", "model:")
        job.write_text(told.replace(", max_steps: 5", ""))
    code, outcome, err = ground.run(
        "run", job, "--offers", ground.offers_file, "--confirm", "YES", "--max-cost", "3", HOME=str(tmp_path)
    )
    assert code == 4, err
    assert words in json.dumps(outcome)
    ground.assert_nothing_happened()
