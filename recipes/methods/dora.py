"""Weight-decomposed low-rank adapters (Liu et al. 2024, arXiv:2402.09353), by PEFT: a direction and a length each.

The low-rank product turns a layer's weight, and a learned length for each output scales it: closer to full
fine-tuning than LoRA at the same rank, for a slower step, because the lengths are measured in each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipes.methods.contract import MethodSettings
from recipes.methods.lora import ATTENTION, Lora

if TYPE_CHECKING:
    from recipes.models.shape import Shape

_FEED_FORWARD_OUTPUTS = 2 * (4 + 1)  # of the linear layers of both feed-forwards, in d_model


class Dora(Lora):
    """As lora, where that does not learn enough at a rank that fits."""

    name = "dora"
    summary = "low-rank adapters with a length for each output do"
    weight_decomposed = True

    def added(self, shape: Shape, settings: MethodSettings) -> float:
        """The low-rank matrices and a length for each output of the adapted layers."""
        outputs = len(ATTENTION) + (_FEED_FORWARD_OUTPUTS if settings.lora_targets != "attention" else 0)
        return super().added(shape, settings) + float(outputs * shape.width * shape.layers)
