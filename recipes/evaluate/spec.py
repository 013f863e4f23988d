"""The settings of recipe `evaluate`; no torch here, so that the launcher can show and check them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DecodingSpec(BaseModel):
    """How a model is run, for every recipe that transcribes."""

    model_config = ConfigDict(extra="forbid")

    batch_size: int = Field(16, ge=1, le=1024, description="clips at once; halved when memory runs out")
    max_duration_s: float = Field(
        120.0, gt=1, description="seconds; longer clips are cut at the quietest moment and rejoined as text"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast on a GPU that supports it, else fp32"
    )
    use_cuda_graph_decoder: bool = Field(
        False, description="CUDA graphs in a transducer's decoder (breaks on CUDA below 12.6)"
    )
    seed: int = Field(42, ge=0, description="of the bootstrap intervals and of anything random in a model")


class EvaluateSpec(DecodingSpec):
    """Which model on which rows. Give `model`, or `hypotheses` to score transcripts made elsewhere."""

    model: str | None = Field(None, description="a .nemo file, or a pretrained name such as nvidia/parakeet-…")
    trust_base: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of a .nemo whose weights may run its maker's programs"
    )
    hypotheses: str | None = Field(None, description="transcripts to score instead, in any form `against` takes")
    against: str | None = Field(
        None,
        description="another system's transcripts of the same rows, to be compared with row by row: JSONL of "
        "audio_filepath and pred_text (or text), a .json of openai-whisper, or a folder of those",
    )
    manifest: str = Field(description="NeMo manifest of the rows to score; relative audio is relative to it")
    general_manifest: str | None = Field(
        None, description="NeMo manifest of ordinary speech, scored beside it to show forgetting"
    )
    mode: Literal["clinical", "nvidia"] = Field("clinical", description="how texts are made comparable")
    bootstrap: int = Field(1000, ge=0, le=100_000, description="resamples behind the 95% intervals; 0: none")

    @model_validator(mode="after")
    def _one_source(self) -> EvaluateSpec:
        if (self.model is None) == (self.hypotheses is None):
            raise ValueError("give either model or hypotheses")
        if self.hypotheses is not None and self.general_manifest is not None:
            raise ValueError("general_manifest needs a model: hypotheses are scored against one manifest")
        return self


SPEC = EvaluateSpec
SUMMARY = "Transcribe a manifest with any model, offline, and score it."
#: Filled in by the launcher from a job's `data`.
DATA_FIELDS = ("manifest", "general_manifest")
