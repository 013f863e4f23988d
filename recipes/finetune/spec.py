"""The settings of the fine-tune recipe: units in the names, recommended values as defaults; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recipes.methods.contract import LoraTargets, MethodName, MethodSettings
from recipes.methods.refused import OVERRIDES, refusal
from recipes.optimizers.facts import IN_BACKWARD, OptimizerName, why_not

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1, le=10**9, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: Filled in by the launcher when it stages a job's data; everything else is the user's.
DATA_FIELDS = ("train_manifest", "validation_manifest", "general_manifest", "general_validation_manifest")

#: Epochs beyond which no run goes by itself (a stop rule, not a recommendation).
MOST_EPOCHS = 30


class FinetuneSpec(BaseModel):
    """Everything `python -m recipes.finetune SPEC.json OUT/` takes; SPEC.json is this object, flat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(
        default="nvidia/parakeet-tdt-0.6b-v2",
        min_length=1,
        description="The model to start from: a path ending in .nemo, or a pretrained name.",
    )
    method: MethodName | Auto = Field(
        default="full",
        description="full: every weight learns. lora: low-rank adapters on the encoder do, for new voices and "
        "channels. dora: as lora, nearer to full at the same rank, slower. ia3: a factor a unit, the least that "
        "learns. lora_decoder: lora and the whole decoder and joint, for new words too. frozen_encoder: only the "
        "decoder and joint, for new words alone. decoder_only: the same, with a warning. bitfit: the biases alone, "
        "for new channels; few bases have any. What is frozen needs 4 to 6 bytes a parameter instead of 16 and is "
        "not forgotten; the result is a plain model all the same. linear_adapter: NeMo's own adapters, whose result "
        "is none: only with allow_linear_adapter. auto: full where it fits, else lora_decoder, else frozen_encoder.",
    )
    lora_rank: int = Field(
        default=16, ge=1, le=512, strict=True,
        description="Rank of the adapters of lora, lora_decoder and dora: more learns more; 8 to 32 are usual.",
    )
    lora_alpha: PositiveFloat | Auto = Field(
        default="auto", description="The adapters count alpha / rank times; auto: twice the rank."
    )
    lora_targets: LoraTargets = Field(
        default="attention",
        description="Layers of the encoder that get adapters; with the feed-forward ones 3.5 times as many weights "
        "learn.",
    )
    lora_dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        default=0.05, description="Share of an adapter's inputs left out at random in training."
    )
    allow_few_biases: bool = Field(
        default=False, description="Go on with bitfit where the encoder has no biases (Parakeet 0.6B: 0.03% learn)."
    )
    allow_linear_adapter: bool = Field(
        default=False,
        description="Take method linear_adapter although its result cannot be merged: no plain model, NeMo alone "
        "reads it.",
    )
    adapter_dim: int = Field(
        default=32, ge=1, le=4096, strict=True, description="Units in the middle of each adapter of linear_adapter."
    )
    train_manifest: str = Field(min_length=1, description="NeMo manifest of the recordings to learn.")
    validation_manifest: str = Field(
        min_length=1, description="NeMo manifest held out of training: picks the best checkpoint, stops early."
    )
    general_manifest: str | None = Field(
        default=None,
        description="NeMo manifest of what the model must not forget (its train part); rows of it are replayed.",
    )
    general_validation_manifest: str | None = Field(
        default=None, description="NeMo manifest of the general set's held-out part; its WER is reported beside."
    )

    max_steps: PositiveInt | Auto = Field(
        default="auto", description="Optimizer steps; auto: as many as max_epochs make."
    )
    max_epochs: int = Field(
        default=10,
        ge=1,
        le=MOST_EPOCHS,
        strict=True,
        description="Passes over the training rows (replayed ones included) when max_steps is auto.",
    )
    batch_size: PositiveInt | Auto = Field(
        default="auto",
        description="Rows a forward pass, of all devices together; auto: 8 (16 from 512 rows an epoch, 32 from "
        "1024) or, where they do not fit in memory, a part of them, the rest accumulated: a step is the same rows on "
        "every machine.",
    )
    measure_batch_size: bool = Field(
        default=False,
        description="On a GPU, try passes of more and of fewer rows than batch_size first, and take the most that "
        "fit; a step stays the same rows. auto does so by itself; the launcher sets this where it put an estimate.",
    )
    accumulate_grad_batches: int = Field(
        default=1, ge=1, le=10_000, strict=True, description="Forward passes that make one optimizer step."
    )
    devices: Annotated[int, Field(ge=1, le=64, strict=True)] | Auto = Field(
        default="auto",
        description="GPUs of each machine that share every pass (on a CPU: processes); auto: what was rented, as the "
        "launcher or SkyPilot says it, else 1. They must divide batch_size x accumulate_grad_batches evenly.",
    )
    learning_rate: PositiveFloat | Auto = Field(
        default="auto",
        description="Peak of the cosine schedule; auto: 3e-5 below 20 h of training audio, 1e-4 above; 3e-4 for "
        "lora, dora, lora_decoder and bitfit, 1e-3 for linear_adapter, 3e-3 for ia3. Tiny models need an "
        "explicit 1e-3 to 4e-3.",
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10**9, strict=True)] | Auto = Field(
        default="auto", description="Steps of linear warm-up; auto: 2% of the steps, at least 5."
    )
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1e-3, description="AdamW weight decay."
    )
    precision: Literal["auto", "bf16-mixed", "bf16-true", "16-mixed", "32"] = Field(
        default="auto",
        description="auto: bf16-mixed where the GPU computes in it, else 32. 16-mixed can give NaN with TDT; "
        "the run then falls back to 32. bf16-true: the weights themselves are bf16 while they learn; it needs an "
        "optimizer of 8 bits, which rounds them stochastically.",
    )
    optimizer: OptimizerName = Field(
        default="adamw",
        description="adamw_8bit: AdamW's moments take 2 bytes a weight instead of 8. adamw_8bit_in_backward: each "
        "weight is stepped in the backward pass, so that gradients never stand together, and is held in bf16: 4 "
        "bytes a weight in all instead of 16; every batch is a step, and gradients are not clipped.",
    )
    activation_checkpointing: bool | Auto = Field(
        default="auto",
        description="The encoder's layers forget what they computed and compute it again in the backward pass: a "
        "fraction of the memory for a third more time, the same losses. auto: where a step does not fit without.",
    )
    gradient_clip_val: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Auto = Field(
        default="auto", description="Largest gradient norm; 0 does not clip; auto: 1 where the optimizer can clip."
    )
    min_duration_s: PositiveFloat = Field(default=0.1, description="Shorter training recordings are left out.")
    max_duration_s: PositiveFloat = Field(
        default=20.0, description="Longer training recordings are left out: memory grows with the longest."
    )
    duration_bucketing: bool = Field(
        default=True,
        description="Rows of like length make a step, so that little is padded and computed for nothing; which rows "
        "meet is less random. An epoch of fewer than eight steps is left to chance. false: all of it.",
    )
    replay_fraction: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = Field(
        default=0.3,
        description="Share of the rows of each epoch that comes from general_manifest (a fresh seeded draw "
        "each epoch); 0 switches replay off. Without general_manifest it has no effect.",
    )
    validation_interval_steps: PositiveInt | Auto = Field(
        default="auto",
        description="Steps between validations; auto: an epoch, but between a 20th and a quarter of the run.",
    )
    checkpoint_interval_steps: PositiveInt | Auto = Field(
        default="auto",
        description="Steps between checkpoints, the most that a kill can lose; auto: as often as validation.",
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, le=20, strict=True, description="Newest checkpoints kept, beside the best weights."
    )
    early_stopping_patience: int = Field(
        default=3,
        ge=0,
        strict=True,
        description="Validations without a better WER before training stops; 0 never stops early.",
    )
    seed: int = Field(default=42, ge=0, le=2**31 - 1, strict=True, description="Of data order and dropout.")
    num_workers: Annotated[int, Field(ge=0, le=64, strict=True)] | Auto = Field(
        default="auto", description="Processes that read audio; auto: 0 on CPU, else cores - 1 up to 8."
    )
    use_cuda_graph_decoder: bool = Field(
        default=False, description="CUDA graphs in decoding; they break validation on CUDA below 12.6."
    )
    fused_batch_size: PositiveInt | Auto | None = Field(
        default="auto",
        description="Rows the joint network takes at once, of those of a pass: fewer need less memory, more are "
        "faster; not what is learned. auto: as many as the base says, fewer where memory asks for it, all where "
        "there is plenty. null: as the base says.",
    )
    allow_unsupported_base: bool = Field(
        default=False, description="Try a base that the table of bases advises against."
    )
    trust_base: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of a .nemo whose weights may run its maker's programs, where the job runs.",
    )

    @field_validator("method", mode="before")
    @classmethod
    def _offered(cls, name: object) -> object:
        reason = refusal(name, OVERRIDES.values())
        if reason is not None:
            raise ValueError(reason)
        return name

    @model_validator(mode="after")
    def _asked_for_twice(self) -> Self:
        reason = refusal(self.method, [name for name in OVERRIDES.values() if getattr(self, name)])
        if reason is not None:
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _durations_in_order(self) -> Self:
        if self.min_duration_s >= self.max_duration_s:
            raise ValueError("min_duration_s must be below max_duration_s")
        return self

    @property
    def base_is_path(self) -> bool:
        """Whether `base` names a file rather than a pretrained model."""
        return self.base.endswith(".nemo") or self.base.startswith(("/", "./", "../", "~"))

    @model_validator(mode="after")
    def _optimizer_suits(self) -> Self:
        clip = None if self.gradient_clip_val == "auto" else self.gradient_clip_val
        reason = why_not(
            self.optimizer, self.precision, method=self.method, accumulate=self.accumulate_grad_batches,
            devices=self.devices, clip=clip,
        )  # fmt: skip
        if reason:
            raise ValueError(reason)
        return self

    @property
    def asked_precision(self) -> str:
        """The precision with what the optimizer makes of `auto`."""
        return "bf16-true" if self.optimizer == IN_BACKWARD else self.precision

    @property
    def gradient_norm(self) -> float:
        """The largest gradient norm, `auto` resolved; 0: not clipped."""
        if self.gradient_clip_val == "auto":
            return 0.0 if self.optimizer == IN_BACKWARD else 1.0
        return self.gradient_clip_val

    @property
    def method_settings(self) -> MethodSettings:
        """What the methods read of this, `auto` resolved."""
        return MethodSettings(
            lora_rank=self.lora_rank,
            lora_alpha=2.0 * self.lora_rank if self.lora_alpha == "auto" else self.lora_alpha,
            lora_targets=self.lora_targets,
            lora_dropout=self.lora_dropout,
            allow_few_biases=self.allow_few_biases,
            adapter_dim=self.adapter_dim,
            seed=self.seed,
        )

    @property
    def replays(self) -> bool:
        """Whether general rows are mixed into training."""
        return self.general_manifest is not None and self.replay_fraction > 0

    def resolved(self, folder: Path) -> FinetuneSpec:
        """The same with absolute paths: a relative one is taken from `folder` (where SPEC.json lies), or, when
        there is no such file, from the working directory."""
        paths: dict[str, Any] = {name: getattr(self, name) for name in DATA_FIELDS}
        if self.base_is_path:
            paths["base"] = self.base
        made = {}
        for name, value in paths.items():
            if value:
                path = Path(value).expanduser()
                beside = (folder / path).absolute()
                made[name] = str(beside if beside.exists() or not path.exists() else path.absolute())
        return self.model_copy(update=made)


SPEC = FinetuneSpec
SUMMARY = "Fine-tune a TDT, RNNT, CTC or hybrid model: every weight, low-rank adapters, the decoder, or both."
