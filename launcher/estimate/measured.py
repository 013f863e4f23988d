"""What earlier runs measured: taken from a run's own events, and turned into the speed of the next."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.offers import canonical
from recipes.constants import figure
from recipes.contract import EVENTS, read_events

if TYPE_CHECKING:
    from launcher.estimate.judgement import Estimate
    from launcher.ledger import Throughput
    from launcher.offers.offer import Offer

SAME_SIZE = 1.4  # models whose parameters differ by less than this factor count as of one size
WARM_UP_EVENTS = 5  # the first steps compile kernels, and an event is a mean of 20; left out where there are more


@dataclass(frozen=True)
class Speed:
    """Audio seconds a second of training, how far p90 of the time lies above p50, and where it comes from."""

    audio_s_per_s: float
    spread: float
    source: str  # measured here | scaled from GPU | arithmetic
    words: str


class Measured:
    """The ledger's rows that tell about one kind of training: same recipe, method, size of model."""

    def __init__(self, rows: Sequence[Throughput], *, method: str, parameters: float) -> None:
        kept = [
            row
            for row in rows
            if row.recipe == "finetune"
            and row.method == method
            and 1 / SAME_SIZE < (row.parameters or 1) / parameters < SAME_SIZE
            and row.audio_s_per_s > 0
            and math.isfinite(row.audio_s_per_s)
        ]
        self._by_gpu: dict[tuple[tuple[str, int], str], list[float]] = {}
        for row in sorted(kept, key=lambda row: row.at, reverse=True):
            kind = (gpu_name(row.gpu, row.count), row.count)
            self._by_gpu.setdefault((kind, row.precision), []).append(row.audio_s_per_s)

    def speed(
        self, kind: tuple[str, int], precision: str, own: float, arithmetic: Callable[[str, int], float], *,
        on_gpu: bool,
    ) -> Speed:  # fmt: skip
        """The speed of (GPU, so many of them): measured there, else scaled from the most alike, else arithmetic.

        `own` is this job's audio seconds a second there by arithmetic, `arithmetic(name, count)` the same elsewhere.
        """
        gpu, _ = kind
        here = self._by_gpu.get((kind, precision))
        if here:
            many = len(here) >= 3
            spread = figure("spread.measured" if many else "spread.measured_once")
            runs = f"{len(here)} earlier run{'s' if len(here) > 1 else ''} on {gpu}"
            return Speed(weighted_median(here), spread, "measured here", runs)
        nearest: tuple[float, str, float] | None = None
        for ((other, count), _), rates in self._by_gpu.items():
            there = arithmetic(other, count) if on_gpu and count else 0.0  # a CPU tells of itself alone
            if there > 0:
                apart = abs(math.log(there / own))
                if nearest is None or apart < nearest[0]:
                    nearest = apart, other, own * weighted_median(rates) / there
        if nearest is not None:
            _, other, rate = nearest
            words = f"{other}'s measured speed times the ratio of the two by arithmetic"
            return Speed(rate, figure("spread.scaled"), f"scaled from {other}", words)
        return Speed(
            own, figure("spread.arithmetic"), "arithmetic", "work over usable rate; nothing was measured yet"
        )


def weighted_median(newest_first: Sequence[float]) -> float:
    """The median of measurements, the newest weighing most: one odd run does not move it far."""
    half_life = figure("spread.half_life_runs")
    weighed = sorted((value, 0.5 ** (age / half_life)) for age, value in enumerate(newest_first))
    middle = sum(weight for _, weight in weighed) / 2
    passed = 0.0
    for (value, weight), (following, _) in pairwise([*weighed, weighed[-1]]):
        passed += weight
        if math.isclose(passed, middle):
            return (value + following) / 2
        if passed > middle:
            return value
    return weighed[-1][0]


def gpu_name(gpu: str, count: int) -> str:
    """The name that measurements are kept under: canonical where there is one; a CPU's own words."""
    known = canonical(gpu) if count else None
    return known.name if known else gpu


def throughput_of(run_dir: Path, run: str, offer: Offer, estimate: Estimate, at: str) -> Throughput | None:
    """What a run's training measured, for `ledger.add_throughput`; None when it made too few steps to tell.

    Reads the `throughput` events of the finetune step in the run's own event file. The recipe's figure is audio
    seconds over seconds of the last 20 optimizer steps, reading of data included; validation, checkpoints and
    start-up are not in it. The first few events, when kernels are compiled, are left out.
    """
    from launcher.ledger import Throughput

    rates, steps = [], 0
    for _, event in read_events(run_dir / EVENTS):
        if event.get("step") != "finetune":
            continue
        if event.get("kind") == "throughput":
            rates.append(float(event.get("audio_seconds_per_second") or 0.0))
        elif event.get("kind") == "progress":
            steps = max(steps, int(event.get("at_step") or 0))
    rates = [rate for rate in (rates[WARM_UP_EVENTS:] or rates) if rate > 0]
    if not rates or not estimate.method or offer.nodes > 1:
        return None
    done = min(1.0, steps / estimate.steps) if estimate.steps else 0.0
    precision = _precision_used(run_dir) or estimate.precision
    return Throughput(
        gpu=gpu_name(offer.gpu, offer.count), count=offer.count, recipe="finetune", method=estimate.method,
        precision=precision, parameters=estimate.parameters, audio_s_per_s=statistics.median(rates),
        audio_s=round(estimate.audio_s * done, 1), at=at, run=run,
    )  # fmt: skip


def _precision_used(run_dir: Path) -> str | None:
    """What the recipe trained in at last: it falls back to 32 where a GPU cannot do what was asked."""
    try:
        held = json.loads((run_dir / "training_run_info.json").read_text(encoding="utf-8"))
        return str(held["hyper_parameters"]["precision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
