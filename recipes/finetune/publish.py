"""Writes what a run leaves behind: finetune.yaml before it trains, the artefacts after."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from omegaconf import OmegaConf

from recipes.contract import RecipeExit, complete, sha256_of, write_atomic, write_json
from recipes.finetune import data, info
from recipes.finetune.checkpoints import Checkpoint, Checkpoints
from recipes.finetune.leading import ASIDE
from recipes.finetune.nemo_config import HEADER, nemo_config
from recipes.finetune.plan import Plan
from recipes.finetune.rules import COLLAPSED_SHARE, collapsed_share, wer
from recipes.finetune.spec import DATA_FIELDS, FinetuneSpec
from recipes.finetune.tensorboard import ScalarLog
from recipes.finetune.training import Training
from recipes.methods.adapter import ADAPTER, AdapterConfig, BaseOfAdapter, write_adapter
from recipes.methods.adapter import CONFIG as ADAPTER_CONFIG
from recipes.methods.lora import MODULES
from recipes.methods.merging import merge_into
from recipes.models.digests import weights_digest
from recipes.models.opening import ModelFacts
from recipes.models.saving import save_model

if TYPE_CHECKING:
    from recipes.finetune.run import Run

MODEL, INFO, HYPOTHESES, CONFIG = (
    "adapted_model.nemo",
    "training_run_info.json",
    "offline_hyps.jsonl",
    "finetune.yaml",
)
TRAIN, VALIDATION = "data/train.jsonl", "data/validation.jsonl"


def optimizer_config(spec: FinetuneSpec, plan: Plan) -> dict[str, Any]:
    """The optimizer section of finetune.yaml: what we train with is what we write."""
    config = nemo_config(
        spec, plan, base="", train="", validation="", sample_rate_hz=0, spec_augment=None, num_workers=0
    )
    optim: dict[str, Any] = config["model"]["optim"]
    return optim


def write_config(run: Run, training: Training, facts: ModelFacts) -> None:
    """Write finetune.yaml and the manifests and links it names."""
    spec, pool = run.spec, run.sets.pool
    train = data.publish(run.out, "train", [pool[i] for i in training.stream.epoch(0)])
    validation = data.publish(run.out, "validation", run.sets.validation)
    augment = training.model.cfg.get("spec_augment")
    config = nemo_config(
        spec,
        training.plan,
        base=data.link_base(run.out, spec.base) if spec.base_is_path else spec.base,
        train=train,
        validation=validation,
        sample_rate_hz=facts.sample_rate_hz,
        spec_augment=OmegaConf.to_container(augment, resolve=True) if augment is not None else None,
        num_workers=training.num_workers,
        nodes=run.world.nodes,
    )
    write_atomic(run.out / CONFIG, HEADER + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def publish(
    run: Run,
    training: Training,
    facts: ModelFacts,
    general_before: float | None,
    reason: str | None,
    base_digest: str | None,
) -> tuple[RecipeExit, str]:
    """Write the artefacts, the one worth most first, COMPLETE.json last; returns exit code and a line about it.

    `base_digest`: of the base's weights, where the method leaves an adapter to be merged into them.
    """
    out, held_out, general_rows = run.out, run.sets.validation, run.sets.general_validation
    run.clock.enter("saving")
    run.events.emit("phase", name="saving")
    step, found, texts = _take_best(run, training)
    adapter = _merge(run, training, base_digest) if base_digest else None
    save_model(training.model, out / MODEL)
    hyps = [{"audio_filepath": r.named, "pred_text": t} for r, t in zip(held_out, texts, strict=True)]
    write_atomic(out / HYPOTHESES, "".join(json.dumps(h, ensure_ascii=False) + "\n" for h in hyps))
    if collapsed_share(texts) >= COLLAPSED_SHARE:
        run.warn("nearly every validation hypothesis is blank or unknown: this model has not learned to write yet")
    general = wer([r.text for r in general_rows], training.decode(general_rows)) if general_rows else None
    run.clock.enter("done")
    stopped = reason is not None and reason.startswith("stopped by")
    result = info.ResultInfo(
        status="stopped" if stopped else "done",
        reason=reason,
        steps=training.step,
        epochs=round(training.plan.epoch_at(training.step), 3),
        final_step_of_model=step,
        loss_last=training.loss,
        validation_wer_before=training.stops.history[0].wer,
        validation_wer=found,
        general_wer_before=general_before,
        general_wer=general,
    )
    write_json(out / INFO, _info(run, training, facts, result).model_dump())
    training.log.close()
    data.forget(run.work)
    data.forget(out / ASIDE)
    metrics = {**result.model_dump(exclude={"status"}), "identity": run.identity, **run.beside.metrics}
    first = [MODEL]
    if adapter:
        alone = [ADAPTER, ADAPTER_CONFIG]
        first = [MODEL, *alone] if run.beside.base_identity else [*alone, MODEL]  # whose base does not come home
        metrics["merged_weights_sha256"] = adapter.merged_weights_sha256
    rest = [INFO, *run.beside.artifacts, HYPOTHESES, CONFIG, ScalarLog.NAME, TRAIN, VALIDATION]
    complete(out, result.status, metrics, [*first, *rest])
    line = (
        f"{training.step} of {training.plan.total_steps} steps{f' ({reason})' if reason else ''}; validation WER "
        f"{result.validation_wer_before:.3f} → {found:.3f} (step {step})"
    )
    if not training.method.is_mergeable:
        line += f"; {run.spec.method} stays beside the base's weights: the model is not merged, NeMo alone reads it"
    return (RecipeExit.STOPPED_AT_LIMIT if stopped else RecipeExit.DONE), line


def _merge(run: Run, training: Training, base_digest: str) -> AdapterConfig:
    """Write down what was learned, alone, and make the model a plain one with it in its weights."""
    spec, method, model = run.spec, training.method, training.model
    tensors, settings = method.adapter(model), spec.method_settings
    is_lora = "lora_rank" in method.reads
    method.unload(model)
    merge_into(model, tensors, settings.lora_scaling)
    config = AdapterConfig(
        method=method.name,
        base=BaseOfAdapter(**_named(spec), weights_sha256=base_digest),
        rank=settings.lora_rank if is_lora else None,
        alpha=settings.lora_alpha if is_lora else None,
        targets=list(MODULES[settings.lora_targets]) if is_lora else [],
        merged_weights_sha256=weights_digest(model.state_dict()),
    )
    write_adapter(run.out, config, tensors)
    return config


def _named(spec: FinetuneSpec) -> dict[str, Any]:
    """The base as artefacts name it: without the folder it lay in."""
    if not spec.base_is_path:
        return {"name": spec.base, "sha256": None}
    return {"name": Path(spec.base).name, "sha256": sha256_of(Path(spec.base))}


def _load_best(checkpoints: Checkpoints, identity: str) -> tuple[dict[str, torch.Tensor] | None, Checkpoint | None]:
    """The weights of the best validation and its notes; (None, None) when there are none of this run."""
    best, _ = checkpoints.newest("best")
    if best is None or best.notes.get("identity") != identity:
        return None, None
    return torch.load(best.state, map_location="cpu", weights_only=True), best


def _take_best(run: Run, training: Training) -> tuple[int, float, list[str]]:
    """Put the best validated weights into the model; returns their step, WER and validation hypotheses."""
    weights, best = _load_best(training.checkpoints, run.identity)
    training.model.eval()
    if weights is not None and best is not None:
        training.method.restore(training.model, weights)
        return best.step, float(best.notes["wer"]), list(best.notes["hypotheses"])
    run.warn("the best weights cannot be read: the last ones are taken")  # they are still a model
    texts = training.decode(run.sets.validation)
    return training.step, wer([r.text for r in run.sets.validation], texts), texts


def _info(run: Run, training: Training, facts: ModelFacts, result: info.ResultInfo) -> info.RunInfo:
    def described(rows: list[data.Row]) -> info.DatasetInfo | None:
        return info.DatasetInfo(**asdict(data.stats(rows))) if rows else None

    spec, sets = run.spec, run.sets
    encoder = sum(p.numel() for p in training.model.encoder.parameters())
    return info.RunInfo(
        recipe=run.beside.recipe,
        method=spec.method,
        base=info.BaseInfo(
            **_named(spec),
            **{k: v for k, v in asdict(facts).items() if k != "parameters"},
        ),
        hyper_parameters=training.plan.as_json() | {"optimizer": spec.optimizer, "schedule": "CosineAnnealing"},
        settings=spec.model_dump(exclude={*DATA_FIELDS, "base"}),
        data={
            "train": described(sets.train),
            "validation": described(sets.validation),
            "general": described(sets.general),
            "general_validation": described(sets.general_validation),
        },
        replayed_rows_per_epoch=training.stream.replayed,
        parameters={
            "total": facts.parameters,
            "trainable": training.trainable,
            "encoder": encoder,
        },
        result=result,
        validations=[info.ValidationInfo(**asdict(v)) for v in training.stops.history],
        seconds={name: round(value, 2) for name, value in training.clock.seconds.items()},
        versions=info.versions(),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    )
