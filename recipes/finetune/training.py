"""Trains: Lightning and NeMo do the steps, this decides what is fed, kept, checked and when it ends."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from omegaconf import OmegaConf

from recipes.contract import EventLog, RecipeExit, RecipeFailure, write_json
from recipes.finetune.backing_off import fall_back
from recipes.finetune.checkpoints import Checkpoint, Checkpoints
from recipes.finetune.clock import Clock
from recipes.finetune.data import Row
from recipes.finetune.line import BeginAgain
from recipes.finetune.plan import Plan
from recipes.finetune.rules import Stops, Validation, collapsed_share, wer
from recipes.finetune.stopping import TRIM_FILE, StopRequest, TrimRequest
from recipes.finetune.stream import Stream, StreamBatches
from recipes.finetune.tensorboard import ScalarLog
from recipes.finetune.watching import Watch, on_cpu, refuse_what_is_not_finite
from recipes.finetune.world import World
from recipes.methods.contract import TuningMethod
from recipes.models.activation_checkpointing import checkpoint_activations
from recipes.models.decoding import transcribe_files
from recipes.models.precision import is_out_of_memory


@dataclass
class Training:
    """One run's training, across resumes and back-offs; `run` returns why it ended."""

    model: Any
    plan: Plan
    stream: Stream
    validation: Sequence[Row]
    optim: dict[str, Any]
    method: TuningMethod
    trainable: int  # parameters
    gradient_clip_val: float
    steps_in_backward: bool
    num_workers: int
    seed: int
    identity: str
    events: EventLog
    clock: Clock
    checkpoints: Checkpoints
    stops: Stops
    stop: StopRequest
    trim: TrimRequest
    log: ScalarLog
    dataset: Any = None
    collate: Callable[[Any], Any] | None = None
    step: int = 0
    ended: str | None = None
    loss: float | None = None
    carried: dict[str, Any] | None = None
    world: World = field(default_factory=World)
    _interval_losses: list[float] = field(default_factory=list)
    _asked_elsewhere: bool = False

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Take weights, optimizer, schedule and history from a checkpoint of the same run.

        None: from the first process's, where several train together. Raises RecipeFailure(BAD_INPUT) when the
        checkpoint is of other settings or data.
        """
        if checkpoint is not None and checkpoint.notes.get("identity") != self.identity and self.world.is_first:
            raise RecipeFailure(
                RecipeExit.BAD_INPUT,
                "OUT holds checkpoints of other settings or data: choose an empty OUT, or remove OUT/checkpoints",
            )
        state = {}
        if checkpoint is not None:
            state = torch.load(checkpoint.state, map_location="cpu", weights_only=True) | {"step": checkpoint.step}
        state = self.world.share_tensors(state)
        self.method.restore(self.model, state["model"])
        self.carried = state
        mine, held = self.plan, replace(Plan(**state["plan"]), precision=self.plan.precision)
        other = mine.devices != held.devices or mine.batch_size < held.batch_size  # or less memory here
        if other and mine.rows_per_step == held.rows_per_step:
            held = replace(held, batch_size=mine.batch_size, accumulate=mine.accumulate, devices=mine.devices)
        self.plan = replace(held, activation_checkpointing=mine.activation_checkpointing)  # as this machine needs it
        self.step = state["step"]
        self.stops.load(state["stops"], every=self.plan.validation_interval_steps)
        self._interval_losses = list(state["interval_losses"])
        self.loss = state["loss"]
        self.clock.seconds = dict(state["seconds"])

    def remember_trim(self) -> None:
        """Take up a shortening that an earlier attempt noted: a resume from before it goes the very same way."""
        if self.world.is_first:
            self._remember_trim()
        self.plan = self.world.share(self.plan)

    def _remember_trim(self) -> None:
        try:
            noted = json.loads(self._trimmed.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if noted["identity"] != self.identity or noted["total_steps"] >= self.plan.total_steps:
            return
        schedule = tuple((float(step), float(place)) for step, place in noted["schedule"])
        self.plan = replace(self.plan, total_steps=max(noted["total_steps"], self.step), schedule=schedule)

    def run(self) -> str | None:
        """Train to the end; returns the reason of an early end, else None. `stopped by …` means someone asked.

        Raises RecipeFailure: OUT_OF_MEMORY at one row a pass, DIVERGED on a loss that is not finite or a collapse.
        """
        if self.world.is_first:
            self._before_the_first_step()
        self._agree()
        while self.step < self.plan.total_steps and self.ended is None:
            problem = self._segment()
            if problem is None:
                break
            self.plan = problem
        plan = self.plan
        if self.ended is None and plan.schedule:
            return f"stopped by {TRIM_FILE}: {plan.planned_steps} steps shortened to {plan.total_steps}"
        return self.ended

    def _before_the_first_step(self) -> None:
        self._take_trim()
        if not self.stops.history or (self.step >= self.plan.total_steps and self.stops.history[-1].step < self.step):
            self.validate()
        self.ended = self.stops.stop_reason()  # a run killed between its early stop and its artefacts

    def _agree(self) -> None:
        self.plan, self.ended = self.world.share((self.plan, self.ended))

    @property
    def _trimmed(self) -> Path:
        return self.checkpoints.folder / "trimmed.json"

    def _take_trim(self) -> None:
        """Shorten the schedule when someone asks for it; noted at once, so that a kill does not forget it."""
        asked = self.trim.max_steps()
        shorter = self.plan.shortened(asked, self.step) if asked else None
        if shorter is None:
            return
        before, self.plan = self.plan.total_steps, shorter
        now = {"total_steps": shorter.total_steps, "schedule": shorter.schedule, "identity": self.identity}
        write_json(self._trimmed, now)
        ends = "it ends now" if shorter.total_steps == self.step else f"it ends at step {shorter.total_steps}"
        words = f"the schedule of {before} steps is shortened at step {self.step}: {ends}"
        self.events.emit("trim", step=self.step, total=shorter.total_steps, total_before=before, message=words)

    def _segment(self) -> Plan | None:
        """Fit until the end (None) or until memory or precision forces another plan (returned)."""
        self.clock.enter("training")
        self.events.emit("phase", name="training")
        trainer, watch = self._trainer()
        self.model.train()
        try:
            trainer.fit(self.model, train_dataloaders=self._loader())
            return None
        except Exception as error:
            found = fall_back(error, self.plan, self.step, self.method, steps_in_backward=self.steps_in_backward)
            if found is None:
                raise
            other, words = found
            if self.world.size > 1:  # the others are in the middle of a step that will never end
                settings = {name: getattr(other, name) for name in ("batch_size", "accumulate", "precision")}
                raise BeginAgain(f"{words}; all begin again at the last checkpoint", **settings) from error
            self._warn(words)
        self.carried = watch.snapshot() if watch.intact else None
        del trainer, watch
        self._reclaim(reload=self.carried is None)
        return other

    def _reclaim(self, *, reload: bool) -> None:
        """Free what the failed attempt held; after an error inside an optimizer step also go back to a checkpoint."""
        self.model.trainer = None  # the failed trainer keeps the batch that did not fit
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not reload:
            return
        newest, _ = self.checkpoints.newest("step")
        if newest is None:
            raise RecipeFailure(
                RecipeExit.OUT_OF_MEMORY, "out of memory inside the first optimizer step: the optimizer does not fit"
            )
        plan = self.plan
        self.resume(newest)
        self.plan = plan

    def _trainer(self) -> tuple[pl.Trainer, Watch]:
        plan, watch = self.plan, Watch(self)
        trainer = self.lightning([watch], max_steps=plan.total_steps, accumulate_grad_batches=plan.accumulate)
        self.model.set_trainer(trainer)
        config = OmegaConf.create(self.optim)
        config.sched.max_steps = plan.planned_steps
        self.model.setup_optimization(config)
        return trainer, watch

    def lightning(self, callbacks: list[pl.Callback], **limits: Any) -> pl.Trainer:
        """A trainer for the plan as it is now, the model's layers ready for it."""
        precision = self.plan.precision
        checkpoint_activations(self.model.encoder, on=self.plan.activation_checkpointing)
        return pl.Trainer(
            **self.world.trainer_settings(),
            **limits,
            accelerator="auto",
            max_epochs=1,  # of the stream, which has no end
            gradient_clip_val=self.gradient_clip_val or None,
            precision={"32": "32-true", "bf16-true": "32-true"}.get(precision, precision),  # we cast
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=10**9,  # NeMo decodes a training batch at each log step: ours validates instead
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            benchmark=False,
            callbacks=callbacks,
        )

    def place(self, step: int) -> float:
        """Where in the planned schedule a step stands, by the plan as it is when this is asked."""
        return self.plan.place(step)

    def _loader(self) -> torch.utils.data.DataLoader[Any]:
        plan = self.plan
        batches = StreamBatches(
            self.stream,
            self.step * plan.rows_per_step,
            plan.batch_size,
            (plan.total_steps - self.step) * plan.accumulate,
            rank=self.world.rank,
            devices=plan.devices,
        )
        return torch.utils.data.DataLoader(
            self.dataset,
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # else it draws from, and so shifts, torch's own
        )

    def validate(self) -> Validation:
        """Decode the validation set, note its WER, keep the weights when they are the best so far.

        Raises RecipeFailure(DIVERGED) when the hypotheses have collapsed, or a weight is not finite.
        """
        refuse_what_is_not_finite(self.method.learned(self.model), self.step)
        left = self.clock.enter("validating")
        self.events.emit("phase", name="validating")
        texts = self.decode(self.validation)
        train_loss = float(np.mean(self._interval_losses)) if self._interval_losses else None
        if self.step % self.plan.validation_interval_steps == 0:  # else a stop asked for it; a resume goes on
            self._interval_losses = []
        errors = wer([r.text for r in self.validation], texts)
        found = Validation(self.step, errors, train_loss, collapsed_share(texts))
        self.stops.add(found)
        self.log.scalars(self.step, val_wer=found.wer)
        self._progress(0.0, 0, val_wer=found.wer)
        if self.step and self.stops.best == found:
            self.checkpoints.save(
                "best",
                self.step,
                lambda path: torch.save(on_cpu(self.method.learned(self.model)), path),
                {"wer": found.wer, "hypotheses": texts, "identity": self.identity},
            )
        collapse = self.stops.collapse()
        if collapse is not None:
            raise RecipeFailure(RecipeExit.DIVERGED, collapse)
        self.clock.enter(left)
        return found

    def decode(self, rows: Sequence[Row]) -> list[str]:
        """Hypotheses of rows; halves its own batch when memory runs out."""
        size = max(self.plan.batch_size, 8)
        if torch.cuda.is_available():
            self.model.to("cuda")  # Lightning leaves a model that it has trained on the CPU
        while True:
            try:
                with self.world.alone(self.model):
                    return transcribe_files(self.model, [row.audio for row in rows], size)
            except Exception as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            size //= 2
            gc.collect()

    def save(self, optimizer_state: dict[str, Any]) -> None:
        """Write the checkpoint of this step. Raises RecipeFailure(DIVERGED) where a weight is not finite."""
        refuse_what_is_not_finite(self.method.learned(self.model), self.step)
        left = self.clock.enter("saving")
        self.events.emit("phase", name="saving")
        state = {
            **optimizer_state,
            "model": on_cpu(self.method.learned(self.model)),
            "plan": self.plan.as_json(),
            "stops": self.stops.as_json(),
            "interval_losses": self._interval_losses,
            "loss": self.loss,
            "seconds": self.clock.seconds,
        }
        written = self.checkpoints.save(
            "step", self.step, lambda path: torch.save(state, path), {"identity": self.identity}
        )
        self.events.emit("checkpoint", name=written.folder.name, bytes=written.state.stat().st_size)
        self.clock.enter(left)
        if left == "training":
            self.events.emit("phase", name="training")

    def all_done(self, watch: Watch, loss: float, seconds: float, audio_s: float) -> bool:
        """After each optimizer step, in every process: the first one decides for all whether training should end."""
        world = self.world
        if world.size == 1:
            return self.step_done(watch, loss, seconds, audio_s)
        loss, audio_s, asked = world.add(loss, audio_s, float(self.stop.reason is not None))
        ends = False
        if world.is_first:
            self._asked_elsewhere = bool(asked)
            ends = self.step_done(watch, loss / world.size, seconds, audio_s)
        self.step = watch.step
        self._agree()
        return world.share(ends)

    def step_done(self, watch: Watch, loss: float, seconds: float, audio_s: float) -> bool:
        """After each optimizer step: report, validate and save when it is time. True when training should end."""
        self.step, self.loss = watch.step, loss
        self._interval_losses.append(loss)
        self.log.scalars(self.step, train_loss=loss, learning_rate=watch.learning_rate())
        self._take_trim()
        plan, last = self.plan, self.step >= self.plan.total_steps
        asked = self.stop.reason or ("a signal to another process" if self._asked_elsewhere else None)
        if watch.report_due(last):
            self._progress(seconds, watch.averaged_steps)
            self.events.emit("throughput", audio_seconds_per_second=round(audio_s / max(seconds, 1e-9), 2))
        if last or asked or self.step % plan.validation_interval_steps == 0:
            self.validate()
            self.ended = None if last else self.stops.stop_reason()
            if asked and not last:
                self.ended = f"stopped by {asked}"
        if last or self.ended or self.step % plan.checkpoint_interval_steps == 0:
            self.save(watch.snapshot())
        return bool(last or self.ended)

    def _progress(self, seconds_per_step: float, averaged_steps: int, **metrics: float) -> None:
        self.events.emit(
            "progress",
            step=self.step,
            total=self.plan.total_steps,
            loss=self.loss,
            metrics=metrics or {"val_wer": self.stops.history[-1].wer} if self.stops.history else {},
            seconds_per_step=round(seconds_per_step, 6) or None,
            averaged_steps=averaged_steps or None,
            epoch=round(self.plan.epoch_at(self.step), 3),
        )

    def _warn(self, message: str) -> None:
        self.events.emit("warning", message=message)
