"""One fine-tuning run, from a spec to the point where artefacts can be written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from recipes.contract import (
    COMPLETE,
    RESULT,
    EventLog,
    RecipeExit,
    RecipeFailure,
    damaged,
    read_complete,
    sha256_of,
    write_json,
)
from recipes.finetune import data
from recipes.finetune.beside import Beside
from recipes.finetune.checkpoints import Checkpoints
from recipes.finetune.clock import Clock
from recipes.finetune.fitting import Fitting, Load, Machine, fit
from recipes.finetune.line import AGAIN
from recipes.finetune.measuring import Meter, measured, meter
from recipes.finetune.plan import Plan, make_plan, plan_warnings
from recipes.finetune.publish import optimizer_config, publish, write_config
from recipes.finetune.rules import Stops, wer
from recipes.finetune.spec import DATA_FIELDS, FinetuneSpec
from recipes.finetune.staged import StagedTraining
from recipes.finetune.stopping import StopRequest, TrimRequest
from recipes.finetune.stream import Stream, replayed_rows
from recipes.finetune.tensorboard import ScalarLog
from recipes.finetune.training import Training
from recipes.finetune.world import ManyProcesses, World
from recipes.methods.registry import METHODS, settings_of_others
from recipes.models.decoding import set_greedy_graphs
from recipes.models.digests import weights_digest
from recipes.models.losses import use_cpu_loss
from recipes.models.opening import ModelFacts, facts_of, open_model, scratch_in
from recipes.models.precision import choose_precision, gpu_memory_gb, hold_in_bf16, hold_in_float32
from recipes.models.quiet import cpu_threads
from recipes.models.shape import shape_of
from recipes.optimizers.build import register
from recipes.optimizers.facts import IN_BACKWARD
from recipes.room import WORK, reserve


@dataclass(frozen=True)
class Run:
    """What stays the same from the first line of a run to its last."""

    spec: FinetuneSpec
    out: Path
    events: EventLog
    clock: Clock
    stop: StopRequest
    sets: data.Sets
    identity: str
    fitting: Fitting
    world: World
    beside: Beside

    @property
    def work(self) -> Path:
        """Scratch files: gone when the run is done, never artefacts."""
        return self.out / WORK

    def warn(self, message: str) -> None:
        """One line that a person should see."""
        self.events.emit("warning", message=message)


def finetune(
    spec: FinetuneSpec, out: Path, sets: data.Sets, *, several: bool = False, beside: Beside | None = None
) -> tuple[RecipeExit, str]:
    """Train and write the artefacts into `out`; returns the exit code and one line about how it went.

    With `out` of an earlier, unfinished run of the same spec and data it goes on from the last whole checkpoint;
    a finished one is left as it is. Raises RecipeFailure for every ending without a usable model.

    `several`: this is one of the processes that train together; all but the first only train, and end with that.
    `beside`: what the recipe that prepared the base adds.
    """
    beside = beside or Beside()
    world = ManyProcesses() if several else World()
    asked_by = (signal.SIGTERM, signal.SIGINT) if world.size == 1 else (signal.SIGTERM,)
    events, clock, stop = EventLog(out), Clock(), StopRequest(out, asked_by)
    fitting = _fitting(spec, sets, world)
    spec = spec.model_copy(update={"method": fitting.method})
    identity = _identity(spec, sets, fitting, beside)
    run = Run(spec, out, events, clock, stop, sets, identity, fitting, world, beside)
    finished = world.share(_finished(run) if world.is_first else None)
    if finished:
        return RecipeExit.DONE, finished
    for line in fitting.words:
        events.emit("note", message=line)
    if not fitting.fits and fitting.why_not:
        run.warn(f"it may not fit: {fitting.why_not}")
    for name in (COMPLETE, RESULT):
        (out / name).unlink(missing_ok=True)
    scratch_in(run.work / "scratch")
    reserve(run.work)
    model = open_model(spec.base, is_path=spec.base_is_path, trusted=spec.trust_base)
    facts = facts_of(model)
    method = METHODS[fitting.method]
    base_digest = weights_digest(model.state_dict()) if method.has_adapter and world.is_first else None
    training = _training(run, model, facts)
    stop.arm()
    if by := _to_measure(spec, world):
        training.plan, words = measured(training, sets.pool, by)
        events.emit("note", message=words)
    newest, passed_over = training.checkpoints.newest("step")
    for line in passed_over:
        run.warn(line)
    if world.share(newest is not None):
        training.resume(newest)
        events.emit("note", message=f"resumed from the checkpoint of step {training.step}")
    training.remember_trim()
    if not world.is_first:
        training.run()
        data.forget(out)  # a folder of its own, beside what the first process makes
        return RecipeExit.DONE, f"{training.step} steps trained as process {world.rank} of {world.size}"
    write_config(run, training, facts)
    general_before = _general_wer(run, training)
    reason = training.run()
    if training.plan.precision == "bf16-true":
        hold_in_float32(model)
    if training.plan.schedule:
        write_config(run, training, facts)  # as many steps as were made
    return publish(run, training, facts, general_before, reason, base_digest)


def _to_measure(spec: FinetuneSpec, world: World) -> Meter | None:
    """What measures a batch here; None where it was asked for, or where several devices would have to agree."""
    guessed = spec.batch_size == "auto" or spec.measure_batch_size
    return meter() if guessed and world.size == 1 and spec.optimizer != IN_BACKWARD else None


def _fitting(spec: FinetuneSpec, sets: data.Sets, world: World) -> Fitting:
    """What `auto` becomes on this machine's GPUs; a CPU's memory is not asked about, training backs off there.

    The GPU with the least free memory decides. RecipeFailure (bad input) where the devices cannot share a step.
    """
    memory_gb = world.least(gpu_memory_gb())
    shape, pool = shape_of(spec.base), sets.pool
    load = Load(
        epoch_rows=len(sets.train) + _replayed(spec, sets),
        longest_s=max(row.duration_s for row in pool),
        longest_tokens=shape.tokens(max(len(row.text) for row in pool)),
    )
    half = choose_precision(spec.asked_precision)[0] != "32"
    machine = Machine(memory_gb, half=half, on_gpu=memory_gb is not None, devices=world.size, nodes=world.nodes)
    found = fit(shape, spec, load, machine)
    if found.devices != world.size:
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"devices: {found.why_not}")
    return world.share(found)


def _identity(spec: FinetuneSpec, sets: data.Sets, fitting: Fitting, beside: Beside) -> str:
    """A hash of all that decides what is learned; two runs with the same one may share checkpoints.

    Of batch, accumulation and devices only the rows a step count: another machine may split them otherwise.
    """
    ignored = {*DATA_FIELDS, "base", "num_workers", "keep_checkpoints", "use_cuda_graph_decoder", "devices"}
    ignored |= {"batch_size", "accumulate_grad_batches", "measure_batch_size"}
    ignored |= {"activation_checkpointing", "fused_batch_size"}
    ignored |= {*settings_of_others(fitting.method)}
    settings = spec.model_dump(exclude=ignored)
    settings["rows_per_step"] = fitting.rows_per_step
    base = beside.base_identity
    if base is None:
        base = sha256_of(Path(spec.base)) if spec.base_is_path and Path(spec.base).is_file() else spec.base
    parts = [
        settings,
        base,
        *(data.stats(rows).sha256 for rows in (sets.train, sets.validation, sets.general)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _finished(run: Run) -> str | None:
    listed = read_complete(run.out)
    if listed is None or damaged(run.out, listed):
        return None
    result = json.loads((run.out / RESULT).read_text(encoding="utf-8"))
    if result.get("status") != "done":
        return None
    if result.get("metrics", {}).get("identity") != run.identity:
        message = "OUT holds a finished run of other settings or data: choose an empty OUT"
        raise RecipeFailure(RecipeExit.BAD_INPUT, message)
    return "this run was finished before; nothing to do"


def _training(run: Run, model: Any, facts: ModelFacts) -> Training:
    spec, sets = run.spec, run.sets
    data.warn_of_unknown(sets.train, model, run.warn)
    durations_s = tuple(row.duration_s for row in sets.pool) if spec.duration_bucketing else ()
    stream = Stream(
        len(sets.train), len(sets.general), _replayed(spec, sets), spec.seed, durations_s, run.fitting.rows_per_step
    )
    plan = _plan(run, stream)
    if not torch.cuda.is_available():
        use_cpu_loss(model)
    if run.fitting.fused_batch_size and hasattr(model, "joint"):
        model.joint.set_fused_batch_size(run.fitting.fused_batch_size)
        if not model.joint.fuse_loss_wer:
            model.joint.set_fuse_loss_wer(True, model.loss, model.wer)
    set_greedy_graphs(model, spec.use_cuda_graph_decoder)
    method = METHODS[run.fitting.method]
    method.prepare(model, spec.method_settings)
    bf16_weights = plan.precision == "bf16-true"
    if bf16_weights:
        hold_in_bf16(model)
    optim = optimizer_config(spec, plan)
    optim["name"] = register(spec.optimizer, bf16_weights=bf16_weights)
    if spec.optimizer == IN_BACKWARD:
        run.warn(f"optimizer {IN_BACKWARD}: a batch of {plan.batch_size} rows is a step, gradients are not clipped")
    if method.warning:
        run.warn(method.warning)
    loader = _nemo_loader(run, model, facts)
    kind = StagedTraining if run.beside.tells_stage else Training
    return kind(
        model=model,
        plan=plan,
        stream=stream,
        validation=sets.validation,
        optim=optim,
        steps_in_backward=spec.optimizer == IN_BACKWARD,
        method=method,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        gradient_clip_val=spec.gradient_norm,
        num_workers=_workers(spec, run.world),
        seed=spec.seed,
        identity=run.identity,
        events=run.events,
        clock=run.clock,
        checkpoints=Checkpoints(run.out / "checkpoints", spec.keep_checkpoints),
        stops=Stops(spec.early_stopping_patience),
        stop=run.stop,
        trim=TrimRequest(run.out, run.warn),
        log=ScalarLog(run.out),
        dataset=loader.dataset,
        collate=loader.collate_fn,
        world=run.world,
    )


def _replayed(spec: FinetuneSpec, sets: data.Sets) -> int:
    return replayed_rows(len(sets.train), spec.replay_fraction) if sets.general else 0


def _plan(run: Run, stream: Stream) -> Plan:
    spec = run.spec
    precision, warning = choose_precision(spec.asked_precision)
    plan = make_plan(
        spec,
        epoch_rows=stream.epoch_rows,
        train_hours=data.stats(run.sets.train).hours,
        batch_size=run.fitting.batch_size,
        accumulate=run.fitting.accumulate,
        precision=precision,
        devices=run.world.size,
        activation_checkpointing=run.fitting.activation_checkpointing,
    )
    if warning:
        run.warn(warning)
        if spec.precision == "bf16-mixed" and torch.cuda.is_available() and spec.batch_size != "auto":
            plan = plan.smaller() or plan
    for line in plan_warnings(spec, plan):
        run.warn(line)
    again = os.environ.get(AGAIN) if run.world.size > 1 else None  # one of them could not go on
    return replace(plan, **json.loads(again)) if again else plan


def _nemo_loader(run: Run, model: Any, facts: ModelFacts) -> Any:
    """NeMo's own training data loader over the pool; the stream only decides which rows make a batch."""
    pool = run.work / "pool.jsonl"
    data.write_pool(run.sets.pool, pool)
    section = {
        "manifest_filepath": str(pool),
        "sample_rate": facts.sample_rate_hz,
        "batch_size": 1,
        "shuffle": False,
        "num_workers": 0,
        "pin_memory": False,
        "is_tarred": False,
        "use_start_end_token": False,
    }
    model.setup_training_data(OmegaConf.create(section))
    loader = model._train_dl
    if len(loader.dataset) != len(run.sets.pool):
        message = f"train_manifest: NeMo reads {len(loader.dataset)} of its {len(run.sets.pool)} rows"
        raise RecipeFailure(RecipeExit.BAD_INPUT, message)
    return loader


def _workers(spec: FinetuneSpec, world: World) -> int:
    if spec.num_workers != "auto":
        return spec.num_workers
    if not torch.cuda.is_available():
        return 0
    threads = cpu_threads() if world.size == 1 else len(os.sched_getaffinity(0)) // world.devices
    return min(8, max(1, threads - 1))


def _general_wer(run: Run, training: Training) -> float | None:
    """WER of the base on the general held-out set; measured once and kept, because a resume has other weights."""
    rows = run.sets.general_validation
    if not rows:
        return None
    kept = run.out / "checkpoints" / "general_before.json"
    if kept.exists():
        return float(json.loads(kept.read_text(encoding="utf-8"))["wer"])
    if training.step:
        return None  # resumed without what the first run kept: the base's weights are gone by now
    run.clock.enter("validating")
    run.events.emit("phase", name="validating")
    before = wer([r.text for r in rows], training.decode(rows))
    write_json(kept, {"wer": before})
    return before
