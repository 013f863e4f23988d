"""The settings of recipe `merge`; no torch here, so that the launcher can show and check them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MergeSpec(BaseModel):
    """Which base and which adapter make a model."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(min_length=1, description="the .nemo that the adapter was learned on, or its pretrained name")
    adapter: str = Field(min_length=1, description="an adapter.safetensors of recipe finetune, or its folder")
    trust_base: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of a .nemo whose weights may run its maker's programs"
    )


SPEC = MergeSpec
MERGED = "merged.nemo"  # in OUT
SUMMARY = "Merge an adapter into its base: a plain model, as the training run would have saved it."
#: Filled in by the launcher from a job's `data`: nothing.
DATA_FIELDS: tuple[str, ...] = ()
