"""IA3 (Liu et al. 2022, arXiv:2205.05638), by PEFT: a learned factor for each key, value and unit inside a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from recipes.methods.contract import MethodName, MethodSettings, TuningMethod, still_batch_norms
from recipes.methods.lora import put_in_adapters, take_out_adapters

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape

#: Outputs of these are scaled, and inputs of the others (conformer layers of NeMo 3.0.0).
KEYS_AND_VALUES, INNER = ("linear_k", "linear_v"), ("linear2",)
SCALE = ".ia3_l"
_AS_PEFT = ".ia3_l.default"
_FACTORS_A_LAYER = 2 + 2 * 4  # in d_model: keys, values, two feed-forwards four times as wide


class Ia3(TuningMethod):
    """For small shifts of voice or channel: a quarter of a million factors of 0.6B, and the least to keep."""

    name: ClassVar[MethodName] = "ia3"
    summary = "a factor for each key, value and inner unit of the encoder does"
    encoder_backward = "inputs"
    #: Its authors' rate; factors near 1 need larger steps than weights.
    learning_rate = 3e-3

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """The factors."""
        return self.added(shape, settings)

    def added(self, shape: Shape, settings: MethodSettings) -> float:
        """One for each key, value and inner unit."""
        return float(_FACTORS_A_LAYER * shape.width * shape.layers)

    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Freeze the base and put in factors of 1."""
        from peft import IA3Config

        for parameter in model.parameters():
            parameter.requires_grad_(False)
        targets = (*KEYS_AND_VALUES, *INNER)
        config = IA3Config(target_modules=list(targets), feedforward_modules=list(INNER))
        put_in_adapters(model.encoder, config, self.name, targets)

    def before_batch(self, model: Any) -> None:
        """Batch norms keep the base's statistics."""
        still_batch_norms(model.encoder)

    def learned(self, model: Any) -> dict[str, Tensor]:
        """The factors."""
        return {name: tensor for name, tensor in model.state_dict().items() if name.endswith(_AS_PEFT)}

    def adapter(self, model: Any) -> dict[str, Tensor]:
        """The same under the names of the layers they belong to."""
        return {name.removesuffix(_AS_PEFT) + SCALE: tensor for name, tensor in super().adapter(model).items()}

    def unload(self, model: Any) -> None:
        """Put the base's own layers back in their places, weights untouched."""
        take_out_adapters(model.encoder)
