"""Every weight learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.methods.contract import MethodSettings, TuningMethod

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape


class Full(TuningMethod):
    """Learns most and forgets most: 16 bytes of memory a parameter."""

    name = "full"
    summary = "every weight learns"
    encoder_backward = "weights"
    has_adapter = False  # it would be the model once more

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """All of them."""
        return shape.parameters

    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Nothing to do: a base is opened with every weight ready to learn."""

    def learned(self, model: Any) -> dict[str, Tensor]:
        """Everything, the running statistics of batch norms included."""
        return dict(model.state_dict())
