"""`batch_size: auto` on a GPU: steps that change nothing say what a batch takes there, instead of an estimate."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
import torch
from omegaconf import OmegaConf

from recipes.finetune.data import Row
from recipes.finetune.fitting import MOST_ROWS
from recipes.finetune.plan import Plan
from recipes.models.precision import is_out_of_memory

if TYPE_CHECKING:
    from recipes.finetune.training import Training

#: Of the GPU's memory: later batches lie in it in other pieces than the one that was tried.
ROOM = 0.95


class Meter(Protocol):
    """Where memory is measured, in GB (10^9 bytes)."""

    capacity_gb: float

    def begin(self) -> None:
        """Forget what was highest so far."""

    def peak_gb(self) -> float:
        """What was highest since."""


class GpuMeter:
    """The GPU that this process trains on: what torch has taken of it, pieces between tensors included."""

    def __init__(self) -> None:
        self.capacity_gb = (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) / 1e9

    def begin(self) -> None:
        """Give back what is free, and forget what was highest so far."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float:
        """What was highest since."""
        return float(torch.cuda.max_memory_reserved() / 1e9)


def meter() -> Meter | None:
    """Of this machine; None where there is no GPU: what a process may take of a host's memory is not known before."""
    return GpuMeter() if torch.cuda.is_available() else None


def measured(training: Training, rows: Sequence[Row], by: Meter) -> tuple[Plan, str]:
    """The plan with the largest batch that a tried step fits in, and a line about it; the same rows a step.

    `rows`: of the pool, in its order. Begins at the plan's own batch; the model is left as it was.
    """
    plan = training.plan
    sizes = _sizes(plan.rows_per_step)
    at = max((i for i, size in enumerate(sizes) if size <= plan.batch_size), default=0)
    peaks: dict[int, float | None] = {}

    def fits(index: int) -> bool:
        size = sizes[index]
        if size not in peaks:
            peaks[size] = _peak_gb(training, worst_rows(rows, size), by)
        peak = peaks[size]
        return peak is not None and peak <= ROOM * by.capacity_gb

    if fits(at):
        while at + 1 < len(sizes) and fits(at + 1):
            at += 1
    else:
        while at > 0 and not fits(at):
            at -= 1
    by.begin()  # what was tried is given back
    size = sizes[at]
    tried = ", ".join(f"{each}: {f'{peak:.1f} GB' if peak is not None else 'too much'}"
                      for each, peak in sorted(peaks.items()))  # fmt: skip
    words = f"batch {size} x {plan.rows_per_step // size}: tried on this GPU of {by.capacity_gb:.1f} GB ({tried})"
    return replace(plan, batch_size=size, accumulate=plan.rows_per_step // size), words


def worst_rows(rows: Sequence[Row], size: int) -> list[int]:
    """`size` places of the pool that need most memory together: the longest text, and the longest recordings."""
    by_length = sorted(range(len(rows)), key=lambda i: rows[i].duration_s, reverse=True)
    longest_text = max(range(len(rows)), key=lambda i: len(rows[i].text))
    order = [longest_text, *(i for i in by_length if i != longest_text)]
    return [order[i % len(order)] for i in range(size)]


def _sizes(rows: int) -> list[int]:
    """The divisors of a step's rows that a pass may be, rising: at most MOST_ROWS, each at least twice the last."""
    sizes: list[int] = []
    for size in range(min(rows, MOST_ROWS), 0, -1):
        if rows % size == 0 and (not sizes or size <= sizes[-1] // 2):
            sizes.append(size)
    return sizes[::-1]


def _peak_gb(training: Training, places: list[int], by: Meter) -> float | None:
    """Of one step on these rows; None when memory ran out."""
    gc.collect()
    by.begin()
    try:
        rehearse(training, places)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        training.model.trainer = training.model._optimizer = training.model._scheduler = None  # they hold memory
        training.model.zero_grad(set_to_none=True)
        gc.collect()
    return by.peak_gb()


def rehearse(training: Training, places: list[int]) -> None:
    """One whole step on these rows of the pool that leaves the model as it was: zero gradients at a rate of zero."""
    model = training.model
    statistics = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    trainer = training.lightning([_Rehearsal(training)], max_steps=1, accumulate_grad_batches=1)
    model.set_trainer(trainer)
    config = OmegaConf.create(training.optim)
    config.lr = 0.0
    config.pop("sched", None)
    model.setup_optimization(config)
    loader = torch.utils.data.DataLoader(training.dataset, batch_sampler=[places], collate_fn=training.collate)
    try:
        trainer.fit(model, train_dataloaders=loader)
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(statistics[name])


class _Rehearsal(pl.Callback):  # type: ignore[misc]
    """What a step of training does besides, and nothing that it would leave."""

    def __init__(self, training: Training) -> None:
        self._training = training

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """As in training."""
        self._training.method.before_batch(pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """One that is not finite would reach the weights even at a rate of zero."""
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
