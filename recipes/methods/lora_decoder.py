"""Low-rank adapters on the encoder, and the whole decoder and joint: sound and words in one, in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.methods.contract import MethodSettings, head_state
from recipes.methods.lora import Lora

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape


class LoraDecoder(Lora):
    """The head is some 1.5% of a 0.6B model (v2: 8.9 M parameters, v3: 18.1 M) and new words are learned there."""

    name = "lora_decoder"
    summary = "low-rank adapters on the encoder and the whole decoder and joint do"

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """The adapters and the head."""
        return self.added(shape, settings) + shape.head_parameters

    def frozen(self, model: Any) -> list[Any]:
        """Those of the encoder."""
        return list(model.encoder.parameters())

    def learned(self, model: Any) -> dict[str, Tensor]:
        """The low-rank matrices and the head."""
        return super().learned(model) | head_state(model)
