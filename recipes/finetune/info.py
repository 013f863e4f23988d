"""training_run_info.json: what was trained, on what, with what, and how it went; names no machine and no path."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
_PACKAGES = ("nemo_toolkit", "torch", "lightning", "transformers", "lhotse", "sentencepiece", "numpy")


class DatasetInfo(BaseModel):
    """One data set in numbers."""

    rows: int
    hours: float
    longest_s: float = Field(description="Longest recording, seconds.")
    sha256: str = Field(description="Over each row's text, duration and audio size, in order; not over names.")


class BaseInfo(BaseModel):
    """The model that training started from, as read from the model."""

    name: str = Field(description="Pretrained name, or the file's own name without its folder.")
    sha256: str | None = Field(description="Of the .nemo; null for a pretrained name.")
    kind: str = Field(description="tdt, rnnt, ctc or hybrid.")
    model_class: str
    vocabulary_size: int
    mel_bands: int
    sample_rate_hz: int


class ValidationInfo(BaseModel):
    """One validation; step 0 is the base before training."""

    step: int
    wer: float = Field(description="Errors a reference word, whitespace words, no normalising.")
    train_loss: float | None = Field(description="Mean training loss since the validation before.")
    collapsed: float = Field(description="Share of hypotheses that are blank or unknown tokens.")


class ResultInfo(BaseModel):
    """How training ended."""

    status: str = Field(description="done, or stopped: someone asked before the last step.")
    reason: str | None = Field(description="Why it ended before total_steps, if it did.")
    steps: int = Field(description="Optimizer steps made, over all resumes.")
    epochs: float
    final_step_of_model: int = Field(description="The step whose weights adapted_model.nemo holds.")
    loss_last: float | None
    validation_wer_before: float
    validation_wer: float = Field(description="Of the weights in adapted_model.nemo.")
    general_wer_before: float | None
    general_wer: float | None


class RunInfo(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    recipe: str = "finetune"
    method: str
    base: BaseInfo
    hyper_parameters: dict[str, Any] = Field(description="The numbers used, `auto` replaced (see plan.py).")
    settings: dict[str, Any] = Field(description="The spec as asked for, without paths.")
    data: dict[str, DatasetInfo | None] = Field(description="train, validation, general, general_validation.")
    replayed_rows_per_epoch: int
    parameters: dict[str, int] = Field(description="total, trainable, encoder.")
    result: ResultInfo
    validations: list[ValidationInfo]
    seconds: dict[str, float] = Field(description="Wall time by phase, over all resumes up to the last checkpoint.")
    versions: dict[str, str]
    device: str


def versions() -> dict[str, str]:
    """Python and the packages that decide what training does."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
