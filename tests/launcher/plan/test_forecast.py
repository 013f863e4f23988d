"""A run is forecast again from its first real steps: pace, money, hours, and the steps that would fit."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offered import LOCAL_GPU, job_of, offer, plan_of

from launcher.clock import iso
from launcher.money import ZERO, Usd
from launcher.plan import Plan
from launcher.prepare import Prepared
from launcher.runner.forecast import FEWEST_STEPS, WARM_UP_STEPS, Forecast, pace_of, reforecast
from recipes.contract import MEAN_OF_STEPS

LONG = "base: nvidia/parakeet-tdt-0.6b-v2, max_steps: 40000"
BEGAN = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Telling:
    """The events of a training as its recipe tells them and the mirror keeps them; `seconds(step)` is the machine."""

    def __init__(self, total: int, interval: int, seconds: Callable[[int], float], validation_s: float = 0.0) -> None:
        self.total, self.interval, self.seconds, self.validation_s = total, interval, seconds, validation_s
        self.events: list[dict[str, Any]] = []
        self.at_s = 0.0
        self.step = 0

    def _say(self, **fields: Any) -> None:
        at = iso(BEGAN + timedelta(seconds=self.at_s))
        event = {"kind": "progress", "step": "finetune", "at": at, "total": self.total, "at_step": self.step}
        self.events.append({**event, "seconds_per_step": None, "averaged_steps": None, **fields})

    def evaluated(self, seconds: float) -> Telling:
        for name in ("before", "finetune"):
            self.events.append(
                {"kind": "phase", "step": "runner", "name": name, "t": iso(BEGAN + timedelta(seconds=self.at_s))}
            )
            self.at_s += seconds if name == "before" else 0
        return self

    def train(self, until: int, since: int | None = None) -> Telling:
        """From a checkpoint (`since`) or from where it is; the recipe starts its mean anew."""
        self.step = self.step if since is None else since
        recent: deque[float] = deque(maxlen=MEAN_OF_STEPS)
        if self.step == 0:
            self.at_s += self.validation_s
            self._say()
        while self.step < until:
            took = self.seconds(self.step)
            self.step += 1
            self.at_s += took
            recent.append(took)
            if self.step <= 1 or self.step % 5 == 0 or took > 2 or self.step == self.total:
                self._say(seconds_per_step=sum(recent) / len(recent), averaged_steps=len(recent))
            if self.step % self.interval == 0:
                self.at_s += self.validation_s
                self._say()
        return self


@pytest.fixture(scope="module")
def plan(folder: Path, prepared: Prepared) -> Plan:
    """More than an hour of training on a rented RTX 4090, by arithmetic."""
    return plan_of(job_of(folder, spec=LONG), prepared, [offer()])


def planned_step_s(plan: Plan) -> float:
    guess = plan.choice.estimate
    return guess.audio_s / guess.audio_s_per_s / guess.steps


def told(plan: Plan, factor: float = 1.0, until: int = 40, **more: Any) -> Telling:
    """As planned but `factor` times slower, the first steps ten times that: kernels are compiled."""
    each = planned_step_s(plan) * factor
    total = plan.choice.estimate.steps
    return Telling(total, 10_000, lambda step: each * (10 if step < 3 else 1), **more).train(until)


def forecast(plan: Plan, telling: Telling, elapsed_s: float = 600.0, **more: Any) -> Forecast:
    found = reforecast(plan, plan.choice.offer.usd_per_hour, elapsed_s, telling.events, **more)
    assert found is not None
    return found


def test_a_run_as_planned_stays_within_what_was_approved(plan: Plan) -> None:
    found = forecast(plan, told(plan))
    assert found.seconds_per_step == pytest.approx(planned_step_s(plan))
    assert not found.breaks and not found.may_break and found.trim_to == found.total
    assert found.left_p50_s < found.left_p90_s and found.usd_so_far < found.usd_p50 < found.usd_p90
    assert found.limit_usd is not None and found.usd_p90 < found.limit_usd
    assert "as planned" in found.words and "approved money" not in found.words and "fit" not in found.words


def test_ten_times_slower_breaks_and_what_is_trimmed_fits_and_one_step_more_does_not(plan: Plan) -> None:
    found = forecast(plan, told(plan, 10.0))
    assert found.slower == pytest.approx(10.0)
    assert found.breaks_ceiling and found.breaks_deadline and found.may_break
    assert found.trim_to is not None and found.step < found.trim_to < found.total
    assert "10.0 times slower than planned" in found.words
    assert f"{found.trim_to} of {found.total} steps" in found.words

    def trimmed(steps: int) -> Forecast:
        telling = told(plan, 10.0)
        telling.events[-1]["total"] = steps
        return forecast(plan, telling)

    ceiling, rate = plan.choice.ceiling, float(plan.choice.offer.usd_per_hour)
    fits, does_not = trimmed(found.trim_to), trimmed(found.trim_to + 1)
    assert not fits.breaks and not fits.may_break and fits.trim_to == fits.total == found.trim_to
    assert does_not.trim_to == found.trim_to
    # What is left over pays for a release that takes as long as we have patience for.
    assert float(fits.usd_p90) + rate * (ceiling.teardown_s - 30) / 3600 <= float(plan.ceiling_usd) + 0.01
    assert fits.left_p90_s + 600 <= plan.deadline_h * 3600


def test_a_run_three_times_slower_than_a_tight_approval_is_trimmed(plan: Plan) -> None:
    """Three times slower is inside the wide p90 of arithmetic, but not of a plan that was measured."""
    guess = plan.choice.estimate
    works_s = guess.seconds_p50 * 1.25
    tight = plan.choice.ceiling.model_copy(update={"run_s": works_s})
    choice = plan.choice.model_copy(update={"ceiling": tight})
    measured = plan.model_copy(update={"candidates": (choice,), "chosen": 0})
    found = forecast(measured, told(measured, 3.0))
    assert found.slower == pytest.approx(3.0) and found.breaks_deadline
    assert found.trim_to is not None and found.step < found.trim_to < 0.6 * found.total


def test_jitter_widens_the_interval_and_leaves_the_middle(plan: Plan) -> None:
    each, chance = planned_step_s(plan), random.Random(5)
    total = plan.choice.estimate.steps
    even = Telling(total, 10_000, lambda _: each).train(100)
    jittery = Telling(total, 10_000, lambda _: each * chance.choice((0.6, 1.0, 1.0, 1.8))).train(100)
    one, other = forecast(plan, even), forecast(plan, jittery)
    assert other.seconds_per_step == pytest.approx(1.1 * each, rel=0.15)
    assert other.left_p90_s / other.left_p50_s > one.left_p90_s / one.left_p50_s


def test_a_single_slow_read_does_not_decide(plan: Plan) -> None:
    each = planned_step_s(plan)
    steps = Telling(plan.choice.estimate.steps, 10_000, lambda step: each * (30 if step == 17 else 1)).train(60)
    assert forecast(plan, steps).seconds_per_step < 3 * each


def test_a_resumed_run_is_judged_by_the_machine_that_resumed_it(plan: Plan) -> None:
    each = planned_step_s(plan)
    telling = told(plan, 1.0, 60)
    telling.seconds = lambda step: each * (40 if step < 43 else 4)  # the first three after the resume compile again
    telling.train(50, since=40)
    assert reforecast(plan, Usd("0.4"), 600, telling.events) is None  # 5 to warm up, then 5: too few yet
    telling.train(90, since=40)
    found = forecast(plan, telling)
    assert (found.step, found.slower) == (90, pytest.approx(4.0))


def test_steps_of_accumulated_passes_are_steps(plan: Plan) -> None:
    """Backing off halves the batch: passes double, steps do not, and only the pace since then counts."""
    each = planned_step_s(plan)
    telling = told(plan, 1.0, 12)
    telling.seconds = lambda _: each * 1.5
    telling.train(40)
    found = forecast(plan, telling)
    assert found.slower == pytest.approx(1.5) and found.step == 40
    assert found.left_p50_s > (found.total - 40) * each * 1.5


def test_validations_are_forecast_as_they_take_here(plan: Plan) -> None:
    each, total = planned_step_s(plan), plan.choice.estimate.steps
    slow = Telling(total, 20, lambda _: each, validation_s=50 * each).train(65)
    found = forecast(plan, slow)
    more = total - 65
    beside = found.left_p50_s - more * each - plan.choice.estimate.phases["evaluate"] - found_collect(plan)
    assert beside == pytest.approx((more // 20 + 2) * 50 * each, rel=0.05)


def found_collect(plan: Plan) -> float:
    return plan.choice.estimate.phases["collect"]


def test_the_second_evaluation_takes_as_long_as_the_first_took_here(plan: Plan) -> None:
    each, phases = planned_step_s(plan), plan.choice.estimate.phases
    found = [
        forecast(plan, Telling(1000, 10_000, lambda _: each).evaluated(phases["model"] + took).train(40))
        for took in (phases["evaluate"], phases["evaluate"] + 900)
    ]
    assert found[1].left_p50_s - found[0].left_p50_s == pytest.approx(900)


@pytest.mark.parametrize("until", [0, 1, WARM_UP_STEPS, WARM_UP_STEPS + FEWEST_STEPS - 1])
def test_before_the_first_real_steps_nothing_is_forecast(plan: Plan, until: int) -> None:
    assert reforecast(plan, Usd("0.4"), 600, told(plan, 1.0, until).events) is None
    assert reforecast(plan, Usd("0.4"), 600, []) is None


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0, 0.0, "1", True, None, [1]])
def test_what_a_broken_machine_says_is_left_out(plan: Plan, odd: object) -> None:
    telling = told(plan, 2.0, 60)
    whole = forecast(plan, telling)
    for key in ("seconds_per_step", "averaged_steps", "at_step", "total", "at"):
        event = {**telling.events[-1], key: odd}
        found = reforecast(plan, Usd("0.40"), 600, [*telling.events, event])
        assert found is None or found.slower == pytest.approx(whole.slower), key
    only_odd = [{**event, "seconds_per_step": odd} for event in telling.events]
    assert reforecast(plan, Usd("0.40"), 600, only_odd) is None
    assert reforecast(plan, Usd("0.40"), float("nan"), telling.events) is None


def test_earlier_attempts_count_and_a_nearer_deadline_binds(plan: Plan) -> None:
    telling = told(plan)
    bare = forecast(plan, telling)
    later = forecast(plan, telling, spent=Usd("0.25"))
    assert later.usd_p50 - bare.usd_p50 == Decimal("0.25") == later.usd_so_far - bare.usd_so_far
    close = forecast(plan, telling, deadline_left_s=bare.left_p50_s / 2)
    assert close.breaks_deadline and not close.breaks_ceiling and close.trim_to is not None
    assert close.trim_to < close.total
    none = forecast(plan, telling, deadline_left_s=1.0)
    assert none.trim_to is None and "not even ending now fits" in none.words


def test_a_machine_of_ones_own_has_hours_and_no_money(folder: Path, prepared: Prepared) -> None:
    plan = plan_of(job_of(folder, spec=LONG), prepared, [LOCAL_GPU])
    found = reforecast(plan, ZERO, 60.0, told(plan, 100.0).events)
    assert found is not None and found.limit_usd is None and not found.breaks_ceiling
    assert found.breaks_deadline and found.usd_p90 == ZERO and "$" not in found.words


@given(st.integers(0, 60), st.integers(1, 400), st.floats(0.01, 100.0), st.integers(0, 30))
def test_the_pace_is_that_of_an_even_machine_whenever_it_is_asked(
    since: int, more: int, each: float, warm_up: int
) -> None:
    warm_up = min(warm_up, WARM_UP_STEPS)
    telling = Telling(10_000, 50, lambda step: each * (7 if step < since + warm_up else 1), validation_s=1.0)
    events = telling.train(since + more, since=since).events
    pace = pace_of(events)
    assert pace is None or pace.p50_s == pytest.approx(each, rel=1e-6)
    if more >= WARM_UP_STEPS + FEWEST_STEPS + 10:  # the events come every 5 steps, the first mean is only an anchor
        assert pace is not None and pace.p90_s >= pace.p50_s


def test_collecting_has_a_time_of_its_own_after_the_work(plan: Plan) -> None:
    telling = told(plan)
    works_s = forecast(plan, telling).left_p50_s - plan.choice.estimate.phases["collect"]
    assert not forecast(plan, telling, deadline_left_s=works_s + 1).breaks_deadline
    assert forecast(plan, telling, deadline_left_s=works_s - 1).breaks_deadline
