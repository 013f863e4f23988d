"""Intervals and paired tests against their closed forms and against kaldialign."""

from __future__ import annotations

import random

import kaldialign
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.scoring import bootstrap_rate, mcnemar, paired_rates, wilson
from recipes.scoring.align import word_edits


def test_wilson_gives_the_intervals_of_the_reference_study() -> None:
    assert wilson(20, 39) == pytest.approx([0.362, 0.661], abs=5e-4)
    assert wilson(5, 39) == pytest.approx([0.056, 0.267], abs=5e-4)


def test_wilson_is_not_empty_at_the_ends() -> None:
    assert wilson(0, 10) == pytest.approx([0.0, 0.2775], abs=1e-3)
    assert wilson(10, 10) == pytest.approx([0.7225, 1.0], abs=1e-3)
    assert wilson(0, 0) is None


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_rate_and_stays_in_bounds(errors: int, total: int) -> None:
    errors = min(errors, total)
    interval = wilson(errors, total)
    assert interval is not None
    assert 0 <= interval[0] <= errors / total <= interval[1] <= 1


REF = [("a", "b", "c"), ("d", "e", "f")]
ONE = [("a", "b", "d"), ("e", "f", "f")]
TWO = [("a", "b", "c"), ("e", "e", "f")]


def counts(said: list[tuple[str, ...]], heard: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    errors = [word_edits(r, h).errors for r, h in zip(said, heard, strict=True)]
    return np.array(errors, float), np.array([len(r) for r in said], float)


@pytest.mark.parametrize("heard", [ONE, TWO], ids=["system1", "system2"])
def test_bootstrap_agrees_with_kaldialign_on_its_own_examples(heard: list[tuple[str, ...]]) -> None:
    theirs = kaldialign.bootstrap_wer_ci(REF, heard)
    ours = bootstrap_rate(*counts(REF, heard), replications=10_000)
    assert ours is not None
    assert ours.mean == pytest.approx(theirs["wer"], abs=0.01)
    assert ours.half_width == pytest.approx(theirs["ci95"], abs=0.01)
    assert ours.ci95[0] == pytest.approx(max(0.0, theirs["ci95min"]), abs=0.01)
    assert ours.ci95[1] == pytest.approx(theirs["ci95max"], abs=0.01)


def test_the_paired_bootstrap_agrees_with_kaldialign_on_its_own_example() -> None:
    theirs = kaldialign.bootstrap_wer_ci(REF, ONE, TWO)
    (before, totals), (after, _) = counts(REF, ONE), counts(REF, TWO)
    ours = paired_rates(before, after, totals)
    assert ours is not None
    assert ours.p_improvement == pytest.approx(theirs["p_s2_improv_over_s1"], abs=0.01)
    assert (ours.before, ours.after) == (0.5, pytest.approx(1 / 6))


def test_bootstrap_agrees_with_kaldialign_on_a_larger_set() -> None:
    draw = random.Random(3)
    said = [tuple(draw.choices("abcdefgh", k=draw.randint(1, 12))) for _ in range(200)]
    heard = [tuple(w if draw.random() > 0.2 else draw.choice("abcdefgh") for w in row) for row in said]
    theirs = kaldialign.bootstrap_wer_ci(said, heard)
    ours = bootstrap_rate(*counts(said, heard), replications=10_000)
    assert ours is not None
    assert ours.ci95 == pytest.approx([theirs["ci95min"], theirs["ci95max"]], abs=0.002)
    assert list(ours.percentile) == pytest.approx([theirs["ci95min"], theirs["ci95max"]], abs=0.004)


def test_bootstrap_does_not_depend_on_the_order_of_rows() -> None:
    errors, totals = np.array([0.0, 3, 1, 2, 2]), np.array([4.0, 5, 6, 7, 7])
    assert bootstrap_rate(errors, totals) == bootstrap_rate(errors[::-1].copy(), totals[::-1].copy())


def test_bootstrap_has_nothing_to_say_without_words_or_replications() -> None:
    nothing = np.zeros(2)
    assert bootstrap_rate(np.ones(2), nothing) is None
    assert bootstrap_rate(np.ones(2), np.ones(2), replications=0) is None
    assert bootstrap_rate(nothing[:0], nothing[:0]) is None


def test_the_permutation_test_finds_a_real_difference_and_not_an_absent_one() -> None:
    draw = np.random.default_rng(5)
    totals = np.full(200, 10.0)
    before = draw.binomial(10, 0.3, 200).astype(float)
    better = np.maximum(0, before - draw.binomial(1, 0.5, 200))
    shuffled = draw.permutation(before)
    real, absent = paired_rates(before, better, totals), paired_rates(before, shuffled, totals)
    assert real is not None
    assert absent is not None
    assert real.p_value < 0.001 < 0.9 < real.p_improvement
    assert real.ci95 is not None
    assert real.ci95[1] < 0
    assert absent.p_value == pytest.approx(1.0)


def test_the_permutation_test_agrees_with_every_arrangement_counted() -> None:
    difference = np.array([-2.0, -1, -1, 0, 1])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).T.reshape(-1, 5)
    exact = float(np.mean(np.abs(signs @ difference) >= abs(difference.sum())))
    ours = paired_rates(np.zeros(5) + 3, 3 + difference, np.full(5, 6.0), replications=40_000)
    assert ours is not None
    assert ours.p_value == pytest.approx(exact, abs=0.01)


def test_equal_systems_have_p_one() -> None:
    ours = paired_rates(np.ones(3), np.ones(3), np.full(3, 2.0))
    assert ours is not None
    assert (ours.delta, ours.p_value, ours.p_improvement) == (0, 1.0, 0.0)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(15, 0) == pytest.approx(2 / 2**15)
    assert mcnemar(0, 15) == mcnemar(15, 0)
    assert mcnemar(8, 1) == pytest.approx(2 * 10 / 2**9)
    assert mcnemar(3, 2) == 1.0
    assert mcnemar(0, 0) == 1.0
    assert 0 <= mcnemar(40_000, 100) < 1e-300
