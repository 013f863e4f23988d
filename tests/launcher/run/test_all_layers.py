"""A real machine is rented with all that releases it in force, or refused before anybody is asked for a YES."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fast import FastGround
from jobs import Launcher
from paid import PaidGround, offer

from launcher.errors import RefusedError
from launcher.layers import VARIABLE as WITHOUT
from launcher.live_gate import refuse_without_layers
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.live import ENDPOINTS

BUDGETS = """default: b
budgets: {b: {per_run_usd: 5, per_day_usd: 5, per_month_usd: 5, max_usd_per_hour: 2, providers: [runpod],
              approval: [typed, preapproved]}}
"""


@pytest.fixture
def ground(fast: FastGround, launcher: Launcher) -> PaidGround:
    made = PaidGround(fast, launcher, BUDGETS)
    made.offer({**offer("NVIDIA L40S/secure", gpu="L40S"), "provider": "runpod", "vram_gb": 48})
    return made


@pytest.mark.parametrize("provider", ["runpod", "vast", "brev"])
@pytest.mark.parametrize("without", ["", "reaper", "sentinel,watchdog"])
def test_a_real_machine_is_rented_with_every_layer_or_not_at_all(
    provider: str, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENDPOINTS[provider][0], raising=False)
    monkeypatch.setenv(WITHOUT, without)
    real = Offer(provider=provider, offer_id="x", gpu="L40S", count=1, vram_gb=48, usd_per_hour=Usd("0.86"))
    if not without:
        refuse_without_layers(real)
        return
    with pytest.raises(RefusedError, match="nothing real is rented without"):
        refuse_without_layers(real)
    monkeypatch.setenv(ENDPOINTS[provider][0], "http://127.0.0.1:1")
    refuse_without_layers(real)  # a simulation


def test_nothing_real_is_rented_with_a_layer_switched_off(ground: PaidGround, tmp_path: Path) -> None:
    job = ground.fast.job(text="resources: {providers: [runpod], via: direct}\n")
    code, outcome, err = ground.run(
        "run", job, "--offers", ground.offers_file, "--confirm", "YES", "--max-cost", "3", HOME=str(tmp_path),
        RUNPOD_API_KEY="planted-0123456789", RUNPOD_API_BASE_URL="",
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
