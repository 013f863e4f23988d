"""What each optimizer holds for a parameter that learns, and what it rules out. Needs no torch: offers are judged so.

adamw                    torch's, moments in float32
adamw_8bit               moments of 8 bits in blocks of 256 with a float32 scale each (arXiv:2110.02861), of
                         bitsandbytes for float32 weights, of torchao with stochastic rounding for bf16 weights
adamw_8bit_in_backward   torchao's for each parameter, stepped as soon as its gradient is whole: the gradients of
                         two parameters never stand together (torchtune: `optimizer_in_bwd`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recipes.constants import figure

OptimizerName = Literal["adamw", "adamw_8bit", "adamw_8bit_in_backward"]
IN_BACKWARD: OptimizerName = "adamw_8bit_in_backward"


@dataclass(frozen=True)
class Saving:
    """How a run saves memory. `bf16_weights`: the weights themselves are bf16, not copies of them."""

    optimizer: OptimizerName = "adamw"
    activation_checkpointing: bool = False
    bf16_weights: bool = False

    @property
    def weight_bytes(self) -> float:
        """Of a weight that learns."""
        return 2.0 if self.bf16_weights else 4.0

    @property
    def bytes_per_parameter(self) -> float:
        """Weight, gradient and moments of a parameter that learns, as they stand beside the activations."""
        moments = figure("memory.eight_bit_moments_bytes_per_parameter")
        if self.optimizer == "adamw":
            moments = 8.0
        gradient = 0.0 if self.optimizer == IN_BACKWARD else self.weight_bytes
        return self.weight_bytes + gradient + moments

    def step_bytes(self, trained: float) -> float:
        """What the step itself holds on a GPU, on top."""
        if self.optimizer == "adamw":
            return trained * figure("memory.optimizer_step_bytes_per_parameter")
        return figure("memory.eight_bit_step_gb") * 1e9


def why_not(optimizer: OptimizerName, precision: str, *, method: str, accumulate: int, devices: object,
            clip: float | None) -> str:  # fmt: skip
    """Why these settings do not go together and which to change; empty when they do. `clip`: None, not asked."""
    if precision == "bf16-true":
        if optimizer == "adamw":
            return (
                "precision bf16-true with optimizer adamw loses small updates to rounding: take optimizer "
                "adamw_8bit, which rounds stochastically, or precision bf16-mixed"
            )
        if method != "full":
            return f"precision bf16-true would round weights that {method} leaves alone: it is for method full"
    if optimizer != IN_BACKWARD:
        return ""
    if precision not in ("auto", "bf16-true"):
        return f"optimizer {IN_BACKWARD} holds the weights in bf16: precision auto or bf16-true, not {precision}"
    if method != "full":
        return f"optimizer {IN_BACKWARD} is for method full: where less learns, gradients are small"
    if accumulate != 1:
        return f"optimizer {IN_BACKWARD} steps in each backward pass: accumulate_grad_batches must be 1"
    if devices not in ("auto", 1):
        return f"optimizer {IN_BACKWARD} cannot exchange gradients with other devices: devices must be 1"
    if clip:
        return f"optimizer {IN_BACKWARD} never sees all gradients at once: gradient_clip_val must be 0"
    return ""
