"""Lightning's side of a Training: restores, seeds every step, refuses a loss that is not finite, counts."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch

from recipes.contract import MEAN_OF_STEPS, RecipeExit, RecipeFailure

if TYPE_CHECKING:
    from recipes.finetune.training import Training

#: Progress is emitted every this many steps, and whenever this many seconds have passed.
PROGRESS_STEPS, PROGRESS_S = 5, 2.0


class NotFinite(Exception):  # noqa: N818  (says what was found)
    """The loss of a step is NaN or infinite; raised before it touches the weights."""


class Watch(pl.Callback):  # type: ignore[misc]
    """Lightning's eyes and hands of a Training: restores, seeds, checks the loss, counts steps."""

    def __init__(self, training: Training) -> None:
        self.training, self.step = training, training.step
        self.intact = True  # False while an optimizer step is half done
        self._losses: list[float] = []
        self._audio_s = 0.0
        # Seconds and audio seconds of the last steps, reading of data included; validating, saving and starting up
        # are not in them (step_done ends before the next step's clock starts): the launcher estimates by this.
        self._recent: deque[tuple[float, float]] = deque(maxlen=MEAN_OF_STEPS)
        self._started = self._reported = time.monotonic()
        self._trainer: pl.Trainer | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the optimizer, the schedule and the step counter where the checkpoint left them."""
        self._trainer = trainer
        self.training.stop.arm()  # fit() has put Lightning's handler first, which ends the process with exit 0
        trainer._signal_connector.received_sigterm = False
        progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        progress.ready = progress.completed = self.step
        carried = self.training.carried
        if carried is not None:
            trainer.optimizers[0].load_state_dict(carried["optimizer"])
            trainer.lr_scheduler_configs[0].scheduler.load_state_dict(carried["scheduler"])
            if carried.get("scaler") and hasattr(trainer.precision_plugin, "scaler"):
                trainer.precision_plugin.load_state_dict(carried["scaler"])
            self.training.carried = None
        for config in trainer.lr_scheduler_configs:  # these, because fit() has made them anew
            follow(config.scheduler, self.training.place)
        self._started = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Seed every source of chance by step and pass: a resume repeats what an unbroken run does."""
        training = self.training
        training.method.before_batch(pl_module)
        part = batch_idx % training.plan.accumulate
        place = f"{training.seed}/step/{self.step}/{part}"
        if training.world.rank:  # each process hears its rows through a noise of its own
            place += f"/{training.world.rank}"
        chance = random.Random(place)
        torch.manual_seed(chance.getrandbits(63))
        np.random.seed(chance.getrandbits(32))  # NeMo's augmentations use the global one
        random.seed(chance.getrandbits(63))
        for module in pl_module.modules():
            if isinstance(getattr(module, "_rng", None), random.Random):
                module._rng.seed(chance.getrandbits(63))
        self._audio_s += float(batch[1].sum()) / float(pl_module.cfg.preprocessor.sample_rate)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Refuse a loss that is not finite before it reaches the weights."""
        if not bool(torch.isfinite(loss)):
            raise NotFinite(str(float(loss)))
        self.intact = self.intact and not self.training.steps_in_backward

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """From here to the end of the step the weights are half old, half new."""
        self.intact = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count passes into steps; after a step let the Training decide whether to go on."""
        self._losses.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))
        if trainer.global_step == self.step:
            return
        self.step, self.intact = trainer.global_step, True
        now = time.monotonic()
        self._recent.append((now - self._started, self._audio_s))
        seconds, audio = (sum(values) / len(self._recent) for values in zip(*self._recent, strict=True))
        loss = sum(self._losses)  # Lightning has divided each by the accumulation
        self._losses, self._audio_s = [], 0.0
        if self.training.all_done(self, loss, seconds, audio):
            trainer.should_stop = True
        self._started = time.monotonic()

    def report_due(self, last: bool) -> bool:
        """Whether progress should be said now."""
        quiet_s = time.monotonic() - self._reported
        due = last or self.step <= 1 or self.step % PROGRESS_STEPS == 0 or quiet_s > PROGRESS_S
        if due:
            self._reported = time.monotonic()
        return due

    @property
    def averaged_steps(self) -> int:
        """How many of the last steps the reported pace is the mean of; begins anew with each start of training."""
        return len(self._recent)

    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self._trainer.optimizers[0].param_groups[0]["lr"]) if self._trainer else 0.0

    def snapshot(self) -> dict[str, Any]:
        """Optimizer, schedule and scaler as they are now, on the host."""
        if self._trainer is None or not self._trainer.optimizers:
            return {}
        plugin = self._trainer.precision_plugin
        return {
            "optimizer": on_cpu(self._trainer.optimizers[0].state_dict()),
            "scheduler": plain(self._trainer.lr_scheduler_configs[0].scheduler.state_dict()),
            "scaler": plugin.state_dict() if getattr(plugin, "scaler", None) is not None else None,
        }


def refuse_what_is_not_finite(learned: Mapping[str, torch.Tensor], step: int) -> None:
    """Raise RecipeFailure(DIVERGED) where a weight is NaN or infinite: no checkpoint, and no model, is made of it."""
    broken = [name for name, tensor in learned.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise RecipeFailure(
            RecipeExit.DIVERGED,
            f"diverged: {len(broken)} of {len(learned)} tensors that learn hold NaN or infinity after step {step}, "
            f"first {broken[0]}. Lower learning_rate, or train in precision 32.",
        )


def follow(scheduler: Any, place: Callable[[int], float]) -> None:
    """Let a learning-rate scheduler read its step through `place`, which may change while it runs.

    NeMo's schedules are functions of `last_epoch` (nemo.core.optim.lr_scheduler, 3.0.0), whole or not.
    """
    as_planned = scheduler.get_lr

    def get_lr() -> Any:
        step = scheduler.last_epoch
        scheduler.last_epoch = place(step)
        try:
            return as_planned()
        finally:
            scheduler.last_epoch = step

    scheduler.get_lr = get_lr


def on_cpu(value: Any) -> Any:
    """A copy of nested tensors on the host."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: on_cpu(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(v) for v in value)
    return value


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a scheduler's state: a checkpoint is loaded with weights_only, so no objects."""
    kinds = (bool, int, float, str, type(None), list, tuple)
    return {k: v for k, v in state.items() if isinstance(v, kinds)}
