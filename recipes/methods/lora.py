"""Low-rank adapters on the encoder's attention, and optionally its feed-forward layers; all else is frozen.

Hu et al. 2021 (arXiv:2106.09685), by Hugging Face's PEFT: NeMo has it for language models only. The low-rank
matrices are added into the weights afterwards (merging.py), so that the result is a plain model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from recipes.contract import RecipeExit, RecipeFailure
from recipes.methods.contract import LoraTargets, MethodName, MethodSettings, TuningMethod, still_batch_norms

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape

#: The linear layers of NeMo 3.0.0's conformer (multi_head_attention.py, conformer_modules.py).
#: Not linear_pos, which takes positions and no sound.
ATTENTION = ("linear_q", "linear_k", "linear_v", "linear_out")
FEED_FORWARD = ("linear1", "linear2")
MODULES: dict[LoraTargets, tuple[str, ...]] = {
    "attention": ATTENTION,
    "attention_and_feed_forward": ATTENTION + FEED_FORWARD,
}
PART_A, PART_B, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude"
_AS_PEFT = {
    ".lora_A.default.weight": PART_A,
    ".lora_B.default.weight": PART_B,
    ".lora_magnitude_vector.default.weight": MAGNITUDE,  # of dora alone
}
_FEED_FORWARDS, _WIDER = 2, 4  # a conformer layer has two, each four times as wide inside


class Lora(TuningMethod):
    """New voices, rooms and channels with little memory and little forgetting; a few MB to keep."""

    name: ClassVar[MethodName] = "lora"
    summary = "low-rank adapters on the encoder learn, all else is frozen"
    reads = ("lora_rank", "lora_alpha", "lora_targets", "lora_dropout")
    encoder_backward = "inputs"
    #: About ten times the rate of full fine-tuning is best for LoRA, whatever the task (Schulman et al.,
    #: "LoRA Without Regret", 2025); 3e-4 is that for little audio, and the recipe's rate in the guides we follow.
    learning_rate = 3e-4
    weight_decomposed: ClassVar[bool] = False

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """The adapters."""
        return self.added(shape, settings)

    def added(self, shape: Shape, settings: MethodSettings) -> float:
        """Rank x (inputs + outputs) of each adapted layer."""
        a_layer = len(ATTENTION) * 2.0 * shape.width
        if settings.lora_targets != "attention":
            a_layer += _FEED_FORWARDS * len(FEED_FORWARD) * (1 + _WIDER) * shape.width
        return settings.lora_rank * a_layer * shape.layers

    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Freeze the base and put the adapters in: they change nothing until they have learned."""
        import torch
        from peft import LoraConfig

        for parameter in self.frozen(model):
            parameter.requires_grad_(False)
        targets = MODULES[settings.lora_targets]
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=list(targets),
            use_dora=self.weight_decomposed,
        )
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every machine
            torch.manual_seed(settings.seed)
            put_in_adapters(model.encoder, config, self.name, targets)

    def frozen(self, model: Any) -> list[Any]:
        """The parameters of the base that do not learn."""
        return list(model.parameters())

    def before_batch(self, model: Any) -> None:
        """Batch norms keep the base's statistics: they are no part of an adapter."""
        still_batch_norms(model.encoder)

    def learned(self, model: Any) -> dict[str, Tensor]:
        """The low-rank matrices."""
        return {name: tensor for name, tensor in model.state_dict().items() if name.endswith(tuple(_AS_PEFT))}

    def adapter(self, model: Any) -> dict[str, Tensor]:
        """The same under the names of the layers they belong to."""
        return {_plain_name(name): tensor for name, tensor in super().adapter(model).items()}

    def unload(self, model: Any) -> None:
        """Put the base's own layers back in their places, weights untouched."""
        take_out_adapters(model.encoder)


def put_in_adapters(encoder: Any, config: Any, method: MethodName, targets: tuple[str, ...]) -> None:
    """Let PEFT wrap the layers that its config names. RecipeFailure(BAD_INPUT) where the encoder has none of them."""
    from peft import inject_adapter_in_model

    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"method: {method}: this base's encoder has none of the layers {', '.join(targets)}: "
            "take method full or frozen_encoder",
        ) from error


def take_out_adapters(encoder: Any) -> None:
    """Every layer that PEFT has wrapped is the base's own again, weights untouched."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(encoder.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            parent, _, own = name.rpartition(".")
            setattr(encoder.get_submodule(parent), own, layer.get_base_layer())
    encoder.__dict__.pop("peft_config", None)


def _plain_name(name: str) -> str:
    for ending, plain in _AS_PEFT.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + plain
    return name
