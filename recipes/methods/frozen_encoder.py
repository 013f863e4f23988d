"""Only the decoder and joint learn; the encoder stays as it is, to its running statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from recipes.methods.contract import MethodName, MethodSettings, TuningMethod, head_state

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape


class FrozenEncoder(TuningMethod):
    """New words and spellings; not new voices or channels, which an encoder would have to learn."""

    name: ClassVar[MethodName] = "frozen_encoder"
    summary = "only the decoder and joint do"
    encoder_backward = "none"

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """Those of the head."""
        return shape.head_parameters

    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Freeze the encoder."""
        model.encoder.freeze()

    def before_batch(self, model: Any) -> None:
        """Its batch norm statistics stay, too."""
        model.encoder.eval()

    def learned(self, model: Any) -> dict[str, Tensor]:
        """The head."""
        return head_state(model)
