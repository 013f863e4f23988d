"""The order of training rows as one endless stream that depends on the seed alone, so a resume finds its place.

Optimizer step s takes rows [s*E, (s+1)*E) of the stream, E = batch size x accumulation x devices. Halving the batch
and doubling the accumulation keeps E, so the stream also survives backing off from out of memory; so does a change
of the number of devices, which take each pass apart: every row of the stream goes to exactly one of them.

With durations, rows of like length make a step (duration bucketing, as Lhotse's samplers do it): a batch is padded to
its longest row, and padding is computed as if it were speech. Rows are shuffled first, then sorted within windows of
some steps; a window is cut into buckets of a few steps each, in which chance says which rows meet, and the steps of a
window come in random order. An epoch is still every row once, and one of few steps is a single bucket: all chance.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

WINDOW_STEPS = 64  # whose rows are sorted together: more would mix an epoch less
BUCKET_STEPS = 4  # of rows of like length that are shuffled together: fewer would let the same rows meet each epoch


def replayed_rows(target_rows: int, fraction: float) -> int:
    """General rows to draw an epoch so that they make up `fraction` of it: f / (1 - f) x target rows, rounded."""
    return round(fraction / (1 - fraction) * target_rows)


def bucket_count(steps: int) -> int:
    """Buckets that a window of so many steps is cut into: of BUCKET_STEPS each or a little more, at least one."""
    return max(1, steps // BUCKET_STEPS)


@dataclass(frozen=True)
class Stream:
    """Rows 0..target-1 are the target set's, target..target+general-1 the general set's.

    Each epoch holds every target row once and `replayed` general rows, shuffled together. The general rows come
    from a shuffled pass over the whole general set that goes on from epoch to epoch, so that all of it is seen
    before any of it comes again. `durations_s`: of all rows; empty: rows of any length make a step of `step_rows`.
    """

    target: int
    general: int
    replayed: int
    seed: int
    durations_s: tuple[float, ...] = ()
    step_rows: int = 1

    @property
    def epoch_rows(self) -> int:
        """Rows in one epoch."""
        return self.target + self.replayed

    def epoch(self, number: int) -> list[int]:
        """The rows of one epoch, in order."""
        rows = [*range(self.target), *self._drawn(number)]
        random.Random(f"{self.seed}/epoch/{number}").shuffle(rows)
        return self._bucketed(rows, number) if self.durations_s else rows

    def _bucketed(self, rows: list[int], number: int) -> list[int]:
        """The same rows, those of a step of like length; whole steps of the stream, not of the epoch."""
        size = self.step_rows
        begun = -number * self.epoch_rows % size  # they end a step that the last epoch began
        ends = len(rows) - (len(rows) - begun) % size  # what is left begins one that the next epoch ends
        made, chance = rows[:begun], random.Random(f"{self.seed}/buckets/{number}")
        for first in range(begun, ends, WINDOW_STEPS * size):
            window = sorted(rows[first : min(ends, first + WINDOW_STEPS * size)], key=self.durations_s.__getitem__)
            steps = self._steps(window, chance)
            chance.shuffle(steps)
            made += [row for step in steps for row in step]
        return made + rows[max(begun, ends) :]

    def _steps(self, window: list[int], chance: random.Random) -> list[list[int]]:
        """Steps of rows of like length, from the sorted rows of a window."""
        size = self.step_rows
        count = len(window) // size
        buckets = bucket_count(count)
        made = []
        for number in range(buckets):
            bucket = window[number * count // buckets * size : (number + 1) * count // buckets * size]
            chance.shuffle(bucket)
            made += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        return made

    def _drawn(self, number: int) -> Iterator[int]:
        for position in range(number * self.replayed, (number + 1) * self.replayed):
            turn, place = divmod(position, self.general)
            yield self.target + self._pass(turn)[place]

    def _pass(self, turn: int) -> list[int]:
        cached: tuple[int, list[int]] | None = self.__dict__.get("_last_pass")
        if cached is None or cached[0] != turn:
            order = list(range(self.general))
            random.Random(f"{self.seed}/replay/{turn}").shuffle(order)
            cached = (turn, order)
            self.__dict__["_last_pass"] = cached
        return cached[1]

    def batches(self, first_row: int, batch_size: int, count: int) -> Iterator[list[int]]:
        """`count` batches from place `first_row` of the stream on; a batch may span two epochs."""
        number, place = divmod(first_row, self.epoch_rows)
        rows = self.epoch(number)
        for _ in range(count):
            batch: list[int] = []
            while len(batch) < batch_size:
                if place == len(rows):
                    number, place = number + 1, 0
                    rows = self.epoch(number)
                taken = rows[place : place + batch_size - len(batch)]
                batch += taken
                place += len(taken)
            yield batch


class StreamBatches:
    """A batch sampler over a stream: what torch's DataLoader asks for.

    `batch_size` rows are one device's: device `rank` of `devices` gets its part of each of the `count` passes.
    """

    def __init__(
        self, stream: Stream, first_row: int, batch_size: int, count: int, *, rank: int = 0, devices: int = 1
    ) -> None:
        self.stream, self.first_row, self.batch_size, self.count = stream, first_row, batch_size, count
        self.rank, self.devices = rank, devices

    def __iter__(self) -> Iterator[list[int]]:
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for rows in self.stream.batches(self.first_row, self.batch_size * self.devices, self.count):
            yield rows[mine]

    def __len__(self) -> int:
        return self.count
