"""What an estimate says of one job on one offer: a frozen value that the plan keeps and prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from recipes.methods.contract import MethodName

PHASES = ("provision", "image", "upload", "model", "baseline", "train", "evaluate", "collect")


class Estimate(BaseModel):
    """Whether it fits, how long it takes, what it moves: seconds, GB (10^9 bytes), each with where it comes from.

    p50 and p90 are of a run in which the machine holds; what a machine that fails costs on top is in
    `failure_chance` and `lost_s`, and `expected_usd` (cost.py) adds it.
    """

    model_config = ConfigDict(frozen=True)

    fits: bool = Field(description="whether memory and method allow it; hours and money are for the plan to judge")
    why_not: str = Field("", description="in words with numbers, when it does not fit")
    needs_gb: float = Field(description="memory of one GPU at its peak, the margin included; of the host on a CPU")
    seconds_p50: float
    seconds_p90: float
    phases: dict[str, float] = Field(description=f"p50 seconds of each of {', '.join(PHASES)}; sum: seconds_p50")
    source: str = Field(description="of the speed: measured here | scaled from GPU NAME | arithmetic")
    sources: dict[str, str] = Field(default_factory=dict, description="figure -> where it comes from, in words")
    steps: int = Field(description="optimizer steps, when nothing stops it early; 0: nothing is trained")
    parameters: int
    audio_s: float = Field(0.0, description="audio seconds trained on, repeats included")
    audio_s_per_s: float = Field(0.0, description="audio seconds a second of training, at p50; 0: nothing is trained")
    method: MethodName | Literal[""] = Field("", description="resolved; empty: nothing is trained")
    batch_size: int = Field(1, description="rows a forward pass of all devices together, resolved")
    accumulate_grad_batches: int = Field(1, description="passes that make a step, resolved")
    devices: int = Field(1, description="GPUs of each machine that train, where they share a step evenly")
    activation_checkpointing: bool = Field(False, description="layers run again in backward, resolved")
    fused_batch_size: int | None = Field(None, description="rows the joint takes at once; null: as the base says")
    precision: str = Field("32", description="bf16-mixed, bf16-true, 16-mixed or 32: as the recipe takes it there")
    choices: tuple[str, ...] = Field((), description="what `auto` chose here and why, in words")
    transfer_up_gb: float = Field(0.0, description="sent from the machine: artefacts and checkpoints home")
    transfer_down_gb: float = Field(0.0, description="received by the machine: data, image, base")
    disk_gb: float = Field(0.0, description="the machine's disk must hold at least this")
    failure_chance: float = Field(0.0, description="0-1: that this machine fails before the run is over")
    lost_s: float = Field(0.0, description="seconds billed in vain when it does, typically")

    def resolved(self, spec: dict[str, object]) -> dict[str, object]:
        """A finetune spec with `auto` replaced by what was judged here, so that the recipe does what was promised."""
        if not self.method:
            return spec
        chosen = {
            "method": self.method,
            "batch_size": self.batch_size,
            "accumulate_grad_batches": self.accumulate_grad_batches,
            "devices": self.devices,
            "activation_checkpointing": self.activation_checkpointing,
            "fused_batch_size": self.fused_batch_size,
            "measure_batch_size": spec.get("batch_size") == "auto",
        }
        return {**spec, **{name: value for name, value in chosen.items() if name in spec}}
