"""Turns `auto` into numbers, once; the numbers travel in the checkpoints, so that a resume keeps them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from recipes.finetune.spec import MOST_EPOCHS, FinetuneSpec
from recipes.methods.registry import METHODS

#: Below this much training audio the smaller learning rate is recommended (NVIDIA's ASR fine-tuning guide).
LITTLE_AUDIO_H = 20.0


@dataclass(frozen=True)
class Plan:
    """The numbers of a run. Steps are optimizer steps; `devices` x `batch_size` x `accumulate` rows make one."""

    total_steps: int
    batch_size: int  # rows a forward pass of one device
    accumulate: int
    learning_rate: float
    warmup_steps: int
    validation_interval_steps: int
    checkpoint_interval_steps: int
    epoch_rows: int
    precision: str
    #: Of a shortened run: (step, place in the schedule as planned), straight lines between. Empty: as planned.
    schedule: tuple[tuple[float, float], ...] = ()
    devices: int = 1  # of all machines together: each learns from its part of every pass
    activation_checkpointing: bool = False

    @property
    def planned_steps(self) -> int:
        """The steps before any shortening."""
        return int(self.schedule[-1][1]) if self.schedule else self.total_steps

    def place(self, step: int) -> float:
        """Where in the planned schedule step `step` stands; the learning rate there is the planned one."""
        at, there = 0.0, 0.0
        for knot, place in self.schedule:
            if step <= knot:
                return place if knot == at else there + (step - at) * (place - there) / (knot - at)
            at, there = knot, place
        return there + (step - at)

    def shortened(self, max_steps: int, done: int) -> Plan | None:
        """The same ending at step `max_steps`, when `done` steps are behind; None when that is not shorter.

        What is left of the schedule is passed through faster: the learning rate goes on from where it is and comes
        to the planned end at the last step. A warm-up still running keeps its pace where half of the steps left hold
        it. At or below `done` it ends now, with the rate where it is. How often it validates and saves stays: the
        last step does both whatever the interval, and each costs of the time that is short.
        """
        ends = max(max_steps, done)
        if ends >= self.total_steps:
            return None
        planned = self.planned_steps
        knots = [knot for knot in self.schedule if knot[0] < done]
        turns = [done]
        if not self.schedule and done < self.warmup_steps <= done + (ends - done) / 2:
            turns.append(self.warmup_steps)
        knots += [(float(turn), float(self.place(turn))) for turn in turns]
        return replace(self, total_steps=ends, schedule=(*knots, (float(ends), float(planned))))

    @property
    def rows_per_step(self) -> int:
        """Rows an optimizer step learns from; neither backing off nor the number of devices changes it."""
        return self.batch_size * self.accumulate * self.devices

    def epoch_at(self, step: int) -> float:
        """Epochs behind after `step` steps."""
        return step * self.rows_per_step / self.epoch_rows

    def smaller(self) -> Plan | None:
        """Half the batch, the rest accumulated: the same rows a step. None when one row is already all.

        An odd batch goes to its largest proper divisor, because only then is a step the same rows.
        """
        for size in range(self.batch_size // 2, 0, -1):
            if self.batch_size % size == 0:
                return replace(self, batch_size=size, accumulate=self.rows_per_step // (size * self.devices))
        return None

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint and for training_run_info.json."""
        return asdict(self)


def make_plan(
    spec: FinetuneSpec, *, epoch_rows: int, train_hours: float, batch_size: int, accumulate: int, precision: str,
    devices: int = 1, activation_checkpointing: bool = False,
) -> Plan:  # fmt: skip
    """The numbers of a run of `epoch_rows` rows an epoch (replayed ones included) and `train_hours` of audio.

    `batch_size` and `accumulate` are as `fitting.fit` resolved them for each of these devices.
    """
    rows_per_step = batch_size * accumulate * devices
    steps = spec.max_steps if spec.max_steps != "auto" else math.ceil(spec.max_epochs * epoch_rows / rows_per_step)
    rate = spec.learning_rate
    if rate == "auto":
        own = METHODS[spec.method].learning_rate if spec.method != "auto" else None
        rate = own or (3e-5 if train_hours < LITTLE_AUDIO_H else 1e-4)
    warmup = min(steps // 2, max(5, round(0.02 * steps))) if spec.warmup_steps == "auto" else spec.warmup_steps
    an_epoch = math.ceil(epoch_rows / rows_per_step)
    validation = min(max(an_epoch, math.ceil(steps / 20)), math.ceil(steps / 4))
    if spec.validation_interval_steps != "auto":
        validation = spec.validation_interval_steps
    checkpoint = validation if spec.checkpoint_interval_steps == "auto" else spec.checkpoint_interval_steps
    return Plan(
        total_steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=rate,
        warmup_steps=warmup,
        validation_interval_steps=validation,
        checkpoint_interval_steps=checkpoint,
        epoch_rows=epoch_rows,
        precision=precision,
        devices=devices,
        activation_checkpointing=activation_checkpointing,
    )


def plan_warnings(spec: FinetuneSpec, plan: Plan) -> list[str]:
    """What a person should know about these numbers before the first step."""
    warnings = []
    epochs = plan.epoch_at(plan.total_steps)
    if spec.max_steps != "auto" and epochs > MOST_EPOCHS:
        warnings.append(f"max_steps {plan.total_steps} is {epochs:.0f} epochs; beyond {MOST_EPOCHS} is overfitting")
    if plan.warmup_steps >= plan.total_steps:
        warnings.append(f"warmup_steps {plan.warmup_steps} is the whole run: the learning rate never peaks")
    return warnings
