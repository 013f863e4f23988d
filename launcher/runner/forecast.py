"""How long a run still takes and what it will cost, at the pace of its first real steps. Pure: no clock, no files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from launcher.clock import parse_iso
from launcher.estimate.cost import HOURS_A_MONTH
from launcher.money import ZERO, Usd
from launcher.plan import Plan
from launcher.runner.steps import BEFORE, FINETUNE
from recipes.constants import figure
from recipes.contract import MEAN_OF_STEPS

#: Steps left out after each start of training: kernels are compiled and chosen, caches fill, the first batches are
#: read with nobody ahead of them. As many as `estimate.measured` leaves out events.
WARM_UP_STEPS = 5
#: A forecast is made from as many real steps or more; before that a single slow read decides it.
FEWEST_STEPS = 10
#: The pace is the median over about so many of the newest steps: a machine that throttles later is noticed.
NEWEST_STEPS = 100
#: Steps jitter at least so much from hour to hour, however even the first ones were (p90 over p50).
LEAST_SPREAD = 1.05


@dataclass(frozen=True)
class Pace:
    """Seconds of an optimizer step, validation and saving not in it: median and 90th percentile of `steps` steps."""

    p50_s: float
    p90_s: float
    steps: int


@dataclass(frozen=True)
class Forecast:
    """The whole run at its real pace. Seconds from now, dollars of the whole run, earlier attempts included.

    `breaks_*` is judged by p50: more likely than not. `may_break` by p90. `trim_to` is the largest max_steps whose
    p90 fits the approved money and hours with evaluation, collection and release still to be paid: `total` when all
    of it fits, the steps done when only ending now fits, None when not even that does.
    """

    step: int
    total: int
    seconds_per_step: float
    planned_seconds_per_step: float
    left_p50_s: float
    left_p90_s: float
    usd_so_far: Usd
    usd_p50: Usd
    usd_p90: Usd
    limit_usd: Usd | None  # None: nothing can be charged
    deadline_left_s: float
    breaks_ceiling: bool
    breaks_deadline: bool
    may_break: bool
    trim_to: int | None

    @property
    def breaks(self) -> bool:
        """Whether the run will more likely than not go beyond its money or its hours."""
        return self.breaks_ceiling or self.breaks_deadline

    @property
    def slower(self) -> float:
        """Times slower than planned; below 1: faster."""
        return self.seconds_per_step / self.planned_seconds_per_step

    @property
    def words(self) -> str:
        """For a person: the pace against the plan, what is left, what it will cost of what, what would fit."""
        times = self.slower if self.slower >= 1 else 1 / self.slower
        which = "slower" if self.slower > 1 else "faster"
        against = "as planned" if times < 1.05 else f"{times:.1f} times {which} than planned"
        said = [
            f"{_s(self.seconds_per_step)} a step, {against}",
            f"{_hours(self.left_p50_s)} to go (at most {_hours(self.left_p90_s)} in 9 of 10 runs)",
        ]
        if self.limit_usd is not None:
            said.append(f"${_cents(self.usd_p50)} in all of ${_cents(self.limit_usd)} approved")
        if self.breaks_ceiling:
            said.append("the approved money will not do")
        if self.breaks_deadline:
            said.append(f"the deadline is in {_hours(self.deadline_left_s)}")
        if self.breaks:
            said.append(
                f"{self.trim_to} of {self.total} steps fit" if self.trim_to and self.trim_to > self.step
                else "only ending now fits" if self.trim_to is not None
                else "not even ending now fits"
            )  # fmt: skip
        return "; ".join(said)


def reforecast(
    plan: Plan,
    rate: Usd,
    elapsed_s: float,
    events: Iterable[Mapping[str, Any]],
    *,
    spent: Usd = ZERO,
    deadline_left_s: float | None = None,
) -> Forecast | None:
    """The forecast of a run that is training; None until FEWEST_STEPS steps after the warm-up, or without a training.

    `rate`: USD an hour of this machine without its disk, by the provider's word. `elapsed_s`: since it began to be
    billed. `events`: the run's own, as the mirror keeps them (`read_events(run_dir / EVENTS)`), all or the newest
    thousands. `spent`: of earlier attempts. `deadline_left_s`: until the runner stops the work in order to collect,
    which is the ceiling's collect_s before the lease's deadline; as planned where not given.
    """
    estimate, ceiling, offer = plan.choice.estimate, plan.choice.ceiling, plan.choice.offer
    held = [event for event in events if isinstance(event, Mapping)]
    steps = [event for event in held if event.get("step") == FINETUNE and event.get("kind") == "progress"]
    where = _where(steps)
    pace = pace_of(steps)
    if where is None or pace is None or not (math.isfinite(elapsed_s) and elapsed_s >= 0) or not estimate.steps:
        return None
    step, total = where
    if estimate.audio_s_per_s <= 0 or estimate.audio_s <= 0:
        return None
    planned_training_s = estimate.audio_s / estimate.audio_s_per_s
    planned_step_s = planned_training_s / estimate.steps
    slower = max(1.0, pace.p50_s / planned_step_s)  # what was not measured yet is not hoped to be faster
    beside_s = max(0.0, estimate.phases.get("train", 0.0) - planned_training_s) / estimate.steps * slower
    evaluate_s = _evaluation_s(held, estimate.phases, slower)
    collect_s = estimate.phases.get("collect", 0.0)
    validation = _validations(steps)

    def left(until: int, collecting_s: float = collect_s) -> tuple[float, float]:
        """(p50, p90) seconds from now to the release, or to the end of the work, when training ends at `until`."""
        more = max(0, until - step)
        train_s = more * pace.p50_s
        beside = beside_s * more
        if validation is not None:
            interval, each_s = validation
            beside = each_s * (math.ceil(more / interval) + 1)  # and one as long for what is written at the end
        p50 = train_s + beside + evaluate_s + collecting_s
        unsure = (
            train_s * (pace.p90_s / pace.p50_s - 1),
            beside * (figure("spread.measured_once") - 1),
            evaluate_s * (figure("spread.measured_once") - 1),
            collecting_s * (figure("spread.setup") - 1),
        )
        return p50, p50 + math.hypot(*unsure)

    hourly = float(rate) + float(offer.disk_usd_per_gb_month) * estimate.disk_gb / HOURS_A_MONTH
    traffic = float(offer.usd_per_gb_down) * estimate.transfer_down_gb
    traffic += float(offer.usd_per_gb_up) * estimate.transfer_up_gb
    if deadline_left_s is None:
        deadline_left_s = plan.deadline_h * 3600 - ceiling.collect_s - elapsed_s
    limit = None if plan.is_free else plan.ceiling_usd
    # The estimate's collect holds a release that goes well; the ceiling's has the patience for one that does not.
    slow_release_s = 0.0 if limit is None else max(0.0, ceiling.teardown_s - figure("phases.teardown_s"))

    def usd(seconds: float) -> float:
        return float(spent) + hourly * (elapsed_s + seconds) / 3600 + traffic

    def fits(until: int) -> bool:
        in_time = left(until, 0.0)[1] <= deadline_left_s
        return in_time and (limit is None or usd(left(until)[1] + slow_release_s) <= float(limit))

    (p50, p90), (works_p50, works_p90) = left(total), left(total, 0.0)
    over = limit is not None and usd(p50) > float(limit)
    may = works_p90 > deadline_left_s or (limit is not None and usd(p90) > float(limit))
    return Forecast(
        step=step, total=total, seconds_per_step=pace.p50_s, planned_seconds_per_step=planned_step_s,
        left_p50_s=p50, left_p90_s=p90, usd_so_far=_up(float(spent) + hourly * elapsed_s / 3600),
        usd_p50=_up(usd(p50)), usd_p90=_up(usd(p90)), limit_usd=limit, deadline_left_s=deadline_left_s,
        breaks_ceiling=over, breaks_deadline=works_p50 > deadline_left_s, may_break=may,
        trim_to=_most(step, total, fits),
    )  # fmt: skip


def pace_of(steps: Sequence[Mapping[str, Any]]) -> Pace | None:
    """The pace by a run's `progress` events; None before enough of its steps are known without their warm-up.

    A recipe's `seconds_per_step` is the mean of its last `averaged_steps` (MEAN_OF_STEPS at most, since training last
    started: a resume, a smaller batch). Two such means give the steps between them alone, so only WARM_UP_STEPS
    steps are lost, not all whose mean holds one of them. Only the newest start counts: what came before ran at
    another pace.
    """
    chunks: list[tuple[int, float]] = []  # (steps, seconds each), of the newest start
    mean_before: tuple[int, int, float] | None = None
    started_at = 0
    for event in steps:
        at, seconds, many = event.get("at_step"), _number(event.get("seconds_per_step")), event.get("averaged_steps")
        if type(at) is not int or seconds is None or type(many) is not int or many < 1:
            continue
        before, mean_before = mean_before, (at, many, seconds)
        if before is None or at <= before[0] or many != min(MEAN_OF_STEPS, before[1] + at - before[0]):
            chunks, started_at = [], at - many
            continue
        if at - many - started_at >= WARM_UP_STEPS:  # a mean that holds no step of the warm-up
            new = at - max(before[0], started_at + WARM_UP_STEPS)
            chunks.append((min(many, new), seconds))
        elif before[1] >= WARM_UP_STEPS and many - before[1] == at - before[0]:
            alone = (many * seconds - before[1] * before[2]) / (many - before[1])
            if alone > 0:
                chunks.append((many - before[1], alone))
    kept: list[float] = []
    for many, seconds in reversed(chunks):
        kept += [seconds] * many
        if len(kept) >= NEWEST_STEPS:
            break
    if len(kept) < FEWEST_STEPS:
        return None
    p50 = statistics.median(kept)
    p90 = statistics.quantiles(kept, n=10)[-1]
    return Pace(p50, max(p90, p50 * LEAST_SPREAD), len(kept))


def _where(steps: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """(steps done, steps in all), by the newest event that says both."""
    for event in reversed(steps):
        at, total = event.get("at_step"), event.get("total")
        if type(at) is int and type(total) is int and at >= 0 and total >= 1:
            return min(at, total), total
    return None


def _validations(steps: Sequence[Mapping[str, Any]]) -> tuple[int, float] | None:
    """(steps between validations, seconds that one and the saving after it take), once steps follow the first.

    By the times of the events around it, less the steps between them at their pace.
    """
    pace = pace_of(steps)
    took: list[float] = []
    intervals: list[int] = []
    last_at: int | None = None
    for number, event in enumerate(steps):
        if event.get("seconds_per_step") is not None or type(event.get("at_step")) is not int:
            continue
        at = int(event["at_step"])
        if last_at is not None and at > last_at:
            intervals.append(at - last_at)
        last_at = at
        around = steps[number - 1 : number + 2]
        if at == 0 or number == 0 or len(around) < 3 or pace is None:
            continue
        first, last = _time(around[0]), _time(around[2])
        between = (around[2].get("at_step") or 0) - (around[0].get("at_step") or 0)
        if first is None or last is None or around[2].get("seconds_per_step") is None or between < 0:
            continue
        took.append(max(0.0, last - first - between * pace.p50_s))
    if not took or not intervals:
        return None
    return max(1, round(statistics.median(intervals))), statistics.median(took)


def _evaluation_s(events: Sequence[Mapping[str, Any]], phases: Mapping[str, float], slower: float) -> float:
    """Seconds of measuring the tuned model: as measuring the base took here, the base's own download not counted."""
    planned = phases.get("evaluate", 0.0)
    begun: float | None = None
    for event in events:
        if event.get("kind") != "phase" or event.get("step") != "runner":
            continue
        at = _time(event)
        if event.get("name") == BEFORE:
            begun = at
        elif event.get("name") == FINETUNE and begun is not None and at is not None and at > begun:
            took = at - begun
            return max(took - phases.get("model", 0.0), min(planned, took))
    return planned * slower


def _most(step: int, total: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number of steps from `step` to `total` that fits; what is needed grows with the steps."""
    if not fits(step):
        return None
    low, high = step, total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _time(event: Mapping[str, Any]) -> float | None:
    """When the recipe said it (`at`), else when the runner did (`t`), in seconds."""
    try:
        return parse_iso(str(event.get("at") or event["t"])).timestamp()
    except (KeyError, ValueError):
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def _up(dollars: float) -> Usd:
    return Usd(Decimal(repr(dollars)).quantize(Decimal("0.000001"), rounding=ROUND_CEILING))


def _cents(amount: Usd) -> str:
    return f"{amount.quantize(Decimal('0.01'), rounding=ROUND_CEILING):.2f}"


def _hours(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{math.ceil(seconds / 60)} min"


def _s(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
