from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from estimate_jobs import BIG, OFFER, V2, V3, cpu_offer, estimate, job_of, offer_of, prepared_of, tiny_base
from hypothesis import assume, given
from hypothesis import strategies as st

from launcher.errors import BadInputError
from launcher.estimate import Estimator, expected_usd
from launcher.estimate.judgement import PHASES
from launcher.estimate.speed import rates_of
from launcher.money import Usd
from launcher.offers import canonical
from recipes.evaluate.spec import EvaluateSpec


def test_an_estimate_says_every_phase_and_they_sum_to_its_p50() -> None:
    made = estimate(job_of(), prepared_of(), OFFER)
    assert set(made.phases) == set(PHASES)
    assert all(made.phases[name] > 0 for name in PHASES)
    assert sum(made.phases.values()) == pytest.approx(made.seconds_p50, abs=1)
    assert made.seconds_p90 > made.seconds_p50
    assert made.source == "arithmetic"
    assert set(made.sources) == {"speed", "gpu", "memory", "base", "bandwidth"}


def test_a_laptop_without_a_gpu_needs_tens_of_hours_for_a_real_model() -> None:
    made = estimate(job_of(method="full", max_epochs=10), prepared_of(hours=1.0), cpu_offer())
    assert made.seconds_p50 > 20 * 3600


def test_a_tiny_model_takes_minutes_on_a_cpu(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "tiny.nemo", width=64, layers=2)
    made = estimate(job_of(base=str(base), max_steps=240, batch_size=16), prepared_of(0.1, clip_s=3), cpu_offer())
    assert 280_000 < made.parameters < 320_000
    assert 45 < made.seconds_p50 < 600
    assert made.needs_gb < 3


def test_a_gpu_that_is_too_small_does_not_fit_and_says_why_with_numbers() -> None:
    made = estimate(job_of(base=BIG, batch_size=2), prepared_of(clip_s=19), offer_of("RTX 4090", 24))
    assert not made.fits
    assert "full needs 2" in made.why_not
    assert "24.0 GB of GPU memory" in made.why_not


def test_what_auto_became_goes_into_the_spec_that_is_sent() -> None:
    job = job_of(method="auto")
    made = estimate(job, prepared_of(), offer_of("RTX 3060", 12))
    sent = made.resolved(job.spec.model_dump())
    assert sent["method"] == "lora_decoder"
    assert sent["batch_size"] == made.batch_size
    assert sent["accumulate_grad_batches"] == made.accumulate_grad_batches
    again = estimate(job_of(**{k: sent[k] for k in ("method", "batch_size", "accumulate_grad_batches")}),
                     prepared_of(), offer_of("RTX 3060", 12))  # fmt: skip
    assert (again.steps, again.needs_gb, again.fits) == (made.steps, made.needs_gb, True)


def test_a_gpu_without_bf16_is_judged_in_float32() -> None:
    made = estimate(job_of(), prepared_of(), offer_of("T4", 16))
    assert made.precision == "32"
    assert estimate(job_of(), prepared_of(), offer_of("L4", 24)).precision == "bf16-mixed"


def test_the_gpus_of_a_machine_share_each_step_and_its_rows_stay_the_same() -> None:
    job = job_of(method="lora_decoder")  # `full` has 2.5 GB of gradients to exchange a step: no faster on four
    one, four, six = (estimate(job, prepared_of(), offer_of("A100 80GB", 80, count=n)) for n in (1, 4, 6))
    assert one.steps == four.steps == six.steps
    rows = one.batch_size * one.accumulate_grad_batches
    assert four.batch_size * four.accumulate_grad_batches == six.batch_size * six.accumulate_grad_batches == rows
    assert (one.devices, four.devices, six.devices) == (1, 4, 4)
    assert one.audio_s_per_s < four.audio_s_per_s == six.audio_s_per_s < 4 * one.audio_s_per_s
    assert one.phases["evaluate"] == four.phases["evaluate"]  # one GPU measures, whatever there is beside it
    assert f"{rows // 4} rows on each of 4 devices: {rows} rows a step, as on one" in four.choices
    assert f"uses 4 of 6 GPUs, as many as share {rows} rows a step evenly: all are paid" in six.choices
    assert four.resolved(job.spec.model_dump())["devices"] == 4


def test_a_job_that_asks_for_more_gpus_than_there_are_does_not_fit() -> None:
    made = estimate(job_of(devices=4), prepared_of(), offer_of("A100 80GB", 80, count=2))
    assert made.why_not == "the job asks for 4 devices, and it has 2 GPUs"
    assert estimate(job_of(devices=2), prepared_of(), offer_of("A100 80GB", 80, count=4)).devices == 2


def test_several_machines_train_as_one_and_pay_for_what_they_exchange() -> None:
    job = job_of()
    three_nodes = replace(job, resources=job.resources.model_copy(update={"nodes": 3}))
    one, three = estimate(job, prepared_of(), OFFER), estimate(three_nodes, prepared_of(), offer_of(
        "A100 80GB", 80, nodes=3))  # fmt: skip
    assert three.fits
    assert three.batch_size * three.accumulate_grad_batches % 3 == 0
    assert three.devices == 1  # of each machine
    assert three.phases["train"] != one.phases["train"]
    assert three.phases["baseline"] == one.phases["baseline"]
    assert any("3 machines train as one" in words for words in three.choices)
    fixed = replace(three_nodes, spec=job.spec.model_copy(update={"batch_size": 8}))
    assert "3 devices cannot share the 8 rows of a step" in estimate(
        fixed, prepared_of(), offer_of("A100 80GB", 80, nodes=3)).why_not  # fmt: skip


def test_a_larger_vocabulary_trains_slower() -> None:
    v2, v3 = (estimate(job_of(base=base, batch_size=8), prepared_of(), OFFER) for base in (V2, V3))
    assert v3.audio_s_per_s < v2.audio_s_per_s


def test_an_evaluation_trains_nothing() -> None:
    job = replace(job_of(), recipe="evaluate", spec=EvaluateSpec(model=V2, manifest="m"))
    made = estimate(job, prepared_of(), OFFER)
    assert made.fits
    assert (made.steps, made.method, made.phases["train"], made.phases["evaluate"]) == (0, "", 0.0, 0.0)
    assert made.phases["baseline"] > 0
    assert made.resolved({"batch_size": 16}) == {"batch_size": 16}


def test_the_users_own_line_is_believed_and_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = estimate(job_of(), prepared_of(), OFFER).phases["upload"]
    monkeypatch.setenv("LAUNCHER_UPLINK_MBPS", "200")
    assert estimate(job_of(), prepared_of(), OFFER).phases["upload"] == pytest.approx(slow / 10, rel=0.01)
    for wrong in ("fast", "-1", "0", "nan", "inf"):
        monkeypatch.setenv("LAUNCHER_UPLINK_MBPS", wrong)
        with pytest.raises(BadInputError, match="LAUNCHER_UPLINK_MBPS"):
            estimate(job_of(), prepared_of(), OFFER)


def test_an_offer_is_weighed_as_it_is_judged_and_nothing_is_worked_out_for_it_that_a_like_one_had() -> None:
    gpus = [("RTX 4090", 24), ("RTX 3090", 24), ("A100 80GB", 80), ("L40S", 48), ("RTX A6000", 48), ("T4", 16)]
    offers = [
        offer_of(
            *gpus[n % 6], offer_id=str(n), usd_per_hour=Usd(f"0.{300 + n % 500}"), reliability=0.9 + n % 10 / 100,
            inet_down_mbps=50 + 7 * n % 900, inet_up_mbps=50 + 3 * n % 900,
        )
        for n in range(300)
    ]  # fmt: skip
    estimator = Estimator(job_of(method="auto"), prepared_of())
    for offer in offers:
        weighed, judged = estimator.weigh(offer), estimator.judge(offer)
        assert (weighed.fits, weighed.why_not) == (judged.fits, judged.why_not)
        assert weighed.seconds_p50 == pytest.approx(judged.seconds_p50, abs=0.06)
        assert weighed.seconds_p90 == pytest.approx(judged.seconds_p90, abs=0.06)
        p50, p90 = expected_usd(offer, judged)
        assert (weighed.usd_p50, weighed.usd_p90) == pytest.approx((float(p50), float(p90)), rel=1e-3)
        assert weighed.estimate == judged
    assert len(estimator._on_gpu) == 6, "fit and speed are worked out once for each kind of machine"


@given(st.floats(0.1, 300), st.floats(0, 300), st.sampled_from(["auto", "full", "frozen_encoder"]))
def test_more_audio_never_costs_less(hours: float, more: float, method: str) -> None:
    job = job_of(method=method, batch_size=8)
    less, greater = (expected_usd(OFFER, estimate(job, prepared_of(h), OFFER)) for h in (hours, hours + more))
    slack = Usd("0.001")  # an epoch ends on whole steps
    assert less[0] <= greater[0] + slack
    assert less[1] <= greater[1] + slack


gpus = st.sampled_from(["RTX 3090", "RTX 4090", "L4", "L40S", "A100 40GB", "A100 80GB", "H100 SXM", "RTX A6000"])


@given(gpus, gpus, st.floats(0.2, 200))
def test_a_faster_gpu_at_the_same_price_is_never_dearer(one: str, other: str, hours: float) -> None:
    a, b = canonical(one), canonical(other)
    assert a
    assert b
    rates = [rates_of(gpu.name, gpu.vram_gb, on_gpu=True) for gpu in (a, b)]
    assume(rates[0].flops <= rates[1].flops and rates[0].bytes_per_s <= rates[1].bytes_per_s)
    job, data = job_of(method="full", batch_size=4), prepared_of(hours)
    slower, faster = (offer_of(gpu.name, 48) for gpu in (a, b))
    assert expected_usd(faster, estimate(job, data, faster)) <= expected_usd(slower, estimate(job, data, slower))


def test_layers_that_run_again_cost_time_and_rows_of_like_length_save_it() -> None:
    varied = replace(prepared_of(), lengths_s=(1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 19.0))
    fast = offer_of("H100", 80)
    job = {"method": "full", "max_epochs": 4, "activation_checkpointing": False, "duration_bucketing": False}
    plain = estimate(job_of(**job), varied, fast)
    again = estimate(job_of(**job | {"activation_checkpointing": True}), varied, fast)
    bucketed = estimate(job_of(**job | {"duration_bucketing": True}), varied, fast)
    assert 1.1 < again.phases["train"] / plain.phases["train"] < 1.4
    assert bucketed.phases["train"] < 0.8 * plain.phases["train"]
    assert again.needs_gb < 0.8 * plain.needs_gb
    assert again.resolved({"activation_checkpointing": "auto"}) == {"activation_checkpointing": True}
