"""Only the biases learn (Ben Zaken et al. 2022, arXiv:2106.10199): the least that can be trained and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.contract import RecipeExit, RecipeFailure
from recipes.methods.contract import MethodSettings, TuningMethod, still_batch_norms

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape

#: Units of bias in a conformer layer, in d_model: attention 4, its two position biases 2, two feed-forwards 10,
#: convolutions 4 (NeMo 3.0.0's ConformerLayer with use_bias).
_BIASES_A_LAYER = 20


class BitFit(TuningMethod):
    """For new channels, on bases that have biases; Parakeet 0.6B's encoders have none (use_bias: false)."""

    name = "bitfit"
    summary = "only the biases do"
    reads = ("allow_few_biases",)
    encoder_backward = "inputs"
    #: Its authors search rates ten times those of full fine-tuning and more.
    learning_rate = 3e-4

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """Of an encoder that has biases: rather too many than too few."""
        return _BIASES_A_LAYER * shape.width * shape.layers

    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Freeze all but the biases. RecipeFailure(BAD_INPUT) where the encoder's layers have none to speak of."""
        names = set(bias_names(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        if settings.allow_few_biases or any(name.startswith("encoder.layers.") and _is_plain(name) for name in names):
            return
        counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
        share = counted / sum(p.numel() for p in model.parameters())
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"method: bitfit: the layers of this base's encoder have no biases (use_bias: false): {counted:,} "
            f"parameters ({share:.3%}) would learn. Take lora, or set allow_few_biases: true",
        )

    def before_batch(self, model: Any) -> None:
        """Batch norms keep the base's statistics."""
        still_batch_norms(model.encoder)

    def learned(self, model: Any) -> dict[str, Tensor]:
        """The biases."""
        state = model.state_dict()
        return {name: state[name] for name in bias_names(model)}


def bias_names(model: Any) -> list[str]:
    """The biases by the type of the module that has them, without those of norms (NeMo names them variously)."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase

    found = []
    for place, module in model.named_modules():
        if not isinstance(module, nn.LayerNorm | nn.GroupNorm | _NormBase):
            own = [name for name, _ in module.named_parameters(recurse=False)]
            found += [f"{place}.{name}" for name in own if name.startswith("bias") or not _is_plain(name)]
    return found


def _is_plain(name: str) -> bool:
    """Not one of the two learned position biases of relative attention, which every such encoder has."""
    return "pos_bias" not in name
