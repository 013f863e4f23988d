"""Intervals and tests: Wilson for proportions, bootstrap for error rates, permutation and McNemar for pairs.

Every draw comes from a seeded generator and rows are pooled by value first, so that a result depends
neither on the order of the rows nor on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Z95 = 1.959963984540054
_CELLS = 4_000_000  # draws held in memory at once


def wilson(errors: float, total: int) -> list[float] | None:
    """The 95% score interval of a proportion (Wilson 1927); None for no observations."""
    if total <= 0:
        return None
    p, z2 = errors / total, _Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return [0.0 if errors == 0 else low, 1.0 if errors == total else high]


@dataclass(frozen=True)
class Bootstrap:
    """A resampled rate: mean and standard deviation over the replications, and two 95% intervals.

    `half_width` is 1.96 standard deviations, the interval of Bisani and Ney (ICASSP 2004) that Kaldi and
    kaldialign print; `percentile` is the 2.5% and 97.5% points.
    """

    mean: float
    half_width: float
    percentile: tuple[float, float]

    @property
    def ci95(self) -> list[float]:
        """mean ± half width, cut off at 0 (an error rate is never negative)."""
        return [max(0.0, self.mean - self.half_width), self.mean + self.half_width]

    def as_json(self) -> dict[str, Any]:
        """The three numbers, JSON-ready; `mean` and `half_width` are kaldialign's `wer` and `ci95`."""
        return {"mean": self.mean, "half_width": self.half_width, "percentile95": list(self.percentile)}


def bootstrap_rate(errors: Floats, totals: Floats, replications: int = 1000, seed: int = 42) -> Bootstrap | None:
    """Resample rows with replacement: each replication's rate is its summed errors over its summed totals.

    `errors` and `totals` have one entry a row. None without rows, without reference words, or with no
    replications. A replication that drew no reference word at all is left out.
    """
    if not len(errors) or not replications or not float(np.sum(totals)):
        return None
    drawn = _resampled_sums(np.column_stack([errors, totals]).astype(np.float64), replications, seed)
    rates = drawn[drawn[:, 1] > 0, 0] / drawn[drawn[:, 1] > 0, 1]
    low, high = np.percentile(rates, [2.5, 97.5])
    return Bootstrap(float(rates.mean()), 1.96 * float(rates.std()), (float(low), float(high)))


@dataclass(frozen=True)
class PairedTest:
    """Two systems on the same rows. `delta` is after minus before: below zero is better."""

    before: float
    after: float
    delta: float
    ci95: tuple[float, float] | None
    p_value: float
    p_improvement: float

    def as_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return {**self.__dict__, "ci95": list(self.ci95) if self.ci95 else None}


def paired_rates(
    before: Floats, after: Floats, totals: Floats, replications: int = 10_000, seed: int = 42
) -> PairedTest | None:
    """Whether two systems' error rates differ, from their errors on the same rows; None without words.

    `p_value`: two-sided permutation test; each row's pair of results is swapped with probability 1/2, and
    the answer is the share of arrangements at least as far apart, the observed one counted in, so never 0.
    `ci95` of the difference and `p_improvement` (how often the second wins): paired bootstrap, as kaldialign.
    """
    words = float(np.sum(totals))
    if not len(before) or not words:
        return None
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    observed = float(difference.sum())
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    rng = np.random.default_rng(seed)
    shuffled = np.zeros(replications)
    for size, count in zip(sizes, counts, strict=True):
        shuffled += size * (2.0 * rng.binomial(int(count), 0.5, replications) - count)
    extreme = int(np.count_nonzero(np.abs(shuffled) >= abs(observed) - 1e-9))
    drawn = _resampled_sums(np.column_stack([difference, np.asarray(totals, np.float64)]), replications, seed)
    heard = drawn[drawn[:, 1] > 0]
    low, high = np.percentile(heard[:, 0] / heard[:, 1], [2.5, 97.5])
    return PairedTest(
        before=float(np.sum(before)) / words,
        after=float(np.sum(after)) / words,
        delta=observed / words,
        ci95=(float(low), float(high)),
        p_value=(extreme + 1) / (replications + 1),
        p_improvement=float(np.mean(drawn[:, 0] < 0)),
    )


def mcnemar(fixed: int, broken: int) -> float:
    """The exact two-sided McNemar p-value: keywords missed before and heard after, against the reverse."""
    pairs, least = fixed + broken, min(fixed, broken)
    if not pairs:
        return 1.0
    logs = [_log_choose(pairs, k) - pairs * math.log(2) for k in range(least + 1)]
    top = max(logs)
    return min(1.0, 2 * math.exp(top) * math.fsum(math.exp(value - top) for value in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _resampled_sums(rows: Floats, replications: int, seed: int) -> Floats:
    """Column sums of samples of len(rows) rows drawn with replacement; shape (replications, columns).

    Equal rows are one outcome with a weight, so that a multinomial draw of the outcomes' counts replaces
    len(rows) single draws.
    """
    rng = np.random.default_rng(seed)
    outcomes, counts = np.unique(rows, axis=0, return_counts=True)
    sums = np.empty((replications, rows.shape[1]))
    step = max(1, _CELLS // len(outcomes))
    for start in range(0, replications, step):
        size = min(step, replications - start)
        sums[start : start + size] = rng.multinomial(len(rows), counts / len(rows), size) @ outcomes
    return sums
