from __future__ import annotations

from pathlib import Path

import pytest
from estimate_jobs import OFFER, cpu_offer, job_of, measured, offer_of, prepared_of
from hypothesis import given
from hypothesis import strategies as st

from launcher.estimate import Estimator
from launcher.estimate.measured import throughput_of, weighted_median
from recipes.contract import EVENTS, EventLog


def judged(rows: list[object], gpu: str = "A100 80GB", gb: float = 80, **settings: object):  # type: ignore[no-untyped-def]
    return Estimator(job_of(**settings), prepared_of(), rows).judge(offer_of(gpu, gb))  # type: ignore[arg-type]


def test_what_was_measured_on_this_gpu_goes_before_all_arithmetic_and_narrows_the_interval() -> None:
    bare, told = judged([]), judged([measured("A100 80GB", 400.0)] * 3)
    assert told.source == "measured here"
    assert told.audio_s_per_s == 400.0
    assert told.seconds_p90 / told.seconds_p50 < bare.seconds_p90 / bare.seconds_p50


def test_another_gpu_that_was_measured_is_scaled() -> None:
    bare, told = judged([], "L40S", 48), judged([measured("A100 80GB", 2 * judged([]).audio_s_per_s)], "L40S", 48)
    assert told.source == "scaled from A100 80GB"
    assert told.audio_s_per_s == pytest.approx(2 * bare.audio_s_per_s, rel=0.01)


def test_the_most_alike_gpu_is_the_one_that_is_scaled_from() -> None:
    rows = [measured("T4", 50.0, precision="32"), measured("RTX 4090", 500.0)]
    assert judged(rows, "RTX 3090", 24).source == "scaled from RTX 4090"


def test_another_method_size_or_recipe_tells_nothing() -> None:
    rows = [
        measured("A100 80GB", 400.0, method="frozen_encoder"), measured("A100 80GB", 400.0, parameters=1_100_000_000),
        measured("A100 80GB", 400.0, recipe="evaluate"), measured("A100 80GB", 0.0),
        measured("A100 80GB", float("nan")),
    ]  # fmt: skip
    assert judged(rows).source == "arithmetic"


def test_one_mad_measurement_does_not_move_the_estimate_far() -> None:
    rows = [measured("A100 80GB", 800.0 + day, day) for day in range(1, 9)] + [measured("A100 80GB", 5.0, 9)]
    assert judged(rows).audio_s_per_s == pytest.approx(804, abs=4)


def test_the_newest_measurements_weigh_most() -> None:
    rows = [measured("A100 80GB", 400.0, day) for day in range(1, 11)]
    rows += [measured("A100 80GB", 800.0, day) for day in range(11, 21)]
    assert judged(rows).audio_s_per_s == 800.0


def test_a_cpu_tells_of_itself_alone() -> None:
    cpu = cpu_offer()
    row = measured(cpu.gpu, 1.5, count=0, precision="32")
    assert judged([row]).source == "arithmetic"
    assert Estimator(job_of(), prepared_of(), [row]).judge(cpu).source == "measured here"


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40))
def test_a_weighted_median_lies_among_its_values(values: list[float]) -> None:
    assert min(values) <= weighted_median(values) <= max(values)


def events_of(folder: Path, rates: list[float], steps: int) -> Path:
    """A run's own event file: as the mirror writes it."""
    log = EventLog(folder)
    log.emit("phase", step="runner", name="finetune")
    for n, rate in enumerate(rates, 1):
        log.emit("progress", step="finetune", at_step=steps * n // len(rates))
        log.emit("throughput", step="finetune", audio_seconds_per_second=rate)
        log.emit("throughput", step="after", audio_seconds_per_second=1e9)
    assert (folder / EVENTS).exists()
    return folder


def test_a_runs_own_events_become_a_row_of_the_ledger_without_the_steps_that_compile(tmp_path: Path) -> None:
    made = judged([])
    told = throughput_of(
        events_of(tmp_path, [3, 5, 9, 40, 80, 500, 510, 490], made.steps // 2), "r", OFFER, made, "now"
    )
    assert told is not None
    assert (told.gpu, told.count, told.method, told.precision) == ("A100 80GB", 1, "full", "bf16-mixed")
    assert told.audio_s_per_s == 500
    assert told.audio_s == pytest.approx(made.audio_s / 2, rel=0.01)


def test_a_run_that_trained_nothing_tells_nothing(tmp_path: Path) -> None:
    assert throughput_of(tmp_path, "r", OFFER, judged([]), "now") is None
