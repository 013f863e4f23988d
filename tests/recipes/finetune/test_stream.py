"""The order of training rows: resumable, every row once an epoch, and rows of like length together where asked."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.finetune.stream import Stream, StreamBatches, replayed_rows


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0, 0.9),
    st.integers(1, 9),
    st.integers(0, 200),
    st.integers(0, 9),
)
def test_a_stream_taken_up_anywhere_gives_the_batches_of_an_unbroken_one(
    target: int, general: int, fraction: float, batch: int, done: int, seed: int
) -> None:
    stream = Stream(target, general, replayed_rows(target, fraction), seed)
    rows = list(itertools.chain.from_iterable(stream.batches(0, 1, done + 5 * batch)))
    again = Stream(target, general, replayed_rows(target, fraction), seed)
    taken = list(StreamBatches(again, done, batch, 5))
    assert list(itertools.chain.from_iterable(taken)) == rows[done:]
    assert {len(b) for b in taken} == {batch}


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.05, 0.9), st.integers(0, 5))
def test_each_epoch_holds_every_target_row_once_and_the_general_rows_take_turns(
    target: int, general: int, fraction: float, seed: int
) -> None:
    stream = Stream(target, general, replayed_rows(target, fraction), seed)
    seen: Counter[int] = Counter()
    for number in range(4):
        rows = stream.epoch(number)
        assert sorted(r for r in rows if r < target) == list(range(target))
        replayed = [r for r in rows if r >= target]
        assert len(replayed) == stream.replayed and all(r < target + general for r in replayed)
        assert abs(len(replayed) / len(rows) - fraction) <= 0.5 / target + 0.01
        seen.update(replayed)
    counts = [seen[target + i] for i in range(general)]
    assert max(counts) - min(counts) <= 1  # all of it before any of it again


@given(st.integers(1, 300), st.integers(1, 30), st.integers(0, 60), st.integers(1, 12), st.integers(0, 400))
def test_bucketing_keeps_every_epoch_whole_and_a_resume_its_place(
    target: int, general: int, replayed: int, step: int, done: int
) -> None:
    durations = tuple(random.Random(3).uniform(0.2, 20.0) for _ in range(target + general))
    plain = Stream(target, general, replayed, 5)
    bucketed = Stream(target, general, replayed, 5, durations, step)
    for number in range(3):
        assert sorted(bucketed.epoch(number)) == sorted(plain.epoch(number))
    rows = list(itertools.chain.from_iterable(bucketed.batches(0, 1, done + 3 * step)))
    again = Stream(target, general, replayed, 5, durations, step)
    assert list(itertools.chain.from_iterable(StreamBatches(again, done, step, 3))) == rows[done:]


@pytest.mark.parametrize("rows", [2048, 3001])
def test_bucketing_pays_for_little_padding_and_meets_others_each_epoch(rows: int) -> None:
    chance = random.Random(1)
    durations = tuple(min(20.0, chance.lognormvariate(1.3, 0.7)) for _ in range(rows))

    def padded(stream: Stream) -> float:
        """Seconds computed for each second heard, over three epochs in steps of 16."""
        steps = list(stream.batches(0, 16, 3 * rows // 16))
        computed = sum(16 * max(durations[row] for row in step) for step in steps)
        return computed / sum(durations[row] for step in steps for row in step)

    plain, bucketed = Stream(rows, 0, 0, 5), Stream(rows, 0, 0, 5, durations, 16)
    assert padded(plain) > 2 > 1.2 > padded(bucketed)
    company = [met(bucketed, epoch * rows, rows // 16) for epoch in (0, 1)]
    assert len(company[0] & company[1]) < 0.15 * len(company[0]), "rows that meet meet others in the next epoch"
    order = [durations[step[0]] for step in bucketed.batches(0, 16, 64)]
    assert order != sorted(order), "steps of a window come in random order"


def met(stream: Stream, first_row: int, steps: int) -> set[tuple[int, int]]:
    """Every two rows that were in a step together."""
    batches = stream.batches(first_row, 16, steps)
    return {pair for rows in batches for pair in itertools.combinations(sorted(rows), 2)}


def test_an_epoch_of_few_steps_is_left_to_chance() -> None:
    durations = tuple(float(row) for row in range(1, 113))
    steps = list(Stream(112, 0, 0, 5, durations, 16).batches(0, 16, 7))
    assert all(min(step) < 56 <= max(step) for step in steps), "short and long ones meet"
    in_two = list(Stream(128, 0, 0, 5, (*durations, *durations[:16]), 16).batches(0, 16, 8))
    assert len({max(durations[row % 112] for row in step) > 60 for step in in_two}) == 2


def test_the_seed_decides_the_order() -> None:
    orders = {tuple(Stream(50, 0, 0, seed).epoch(epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4
