"""NeMo's own adapters: a bottleneck of two linear layers beside each conformer layer (Houlsby et al. 2019,
arXiv:1902.00751). Refused unless it is asked for twice: the result is no plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from recipes.contract import RecipeExit, RecipeFailure
from recipes.methods.contract import MethodName, MethodSettings, TuningMethod, still_batch_norms

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape

#: How NeMo 3.0.0 names an adapter of the encoder: `encoder:` where it is added, not in the tensors' names.
NAME = "linear_adapter"
_IN_STATE = f".adapter_layer.{NAME}."


class LinearAdapter(TuningMethod):
    """For who needs NeMo's adapters themselves; lora learns the same with a plain model as its result."""

    name: ClassVar[MethodName] = "linear_adapter"
    summary = "NeMo's own adapters beside each layer of the encoder do, and stay there"
    reads = ("adapter_dim", "allow_linear_adapter")
    encoder_backward = "inputs"
    has_adapter = False
    is_mergeable = False
    #: The rate of NeMo's own example (examples/asr/conf/asr_adaptation/asr_adaptation.yaml).
    learning_rate = 1e-3
    warning = (
        "linear_adapter: with it others saw NaN on TDT and RNNT, so the run ends at the first loss or weight that is "
        "not finite; what it learns cannot be merged: the result has the adapters beside the base's weights, and "
        "NeMo alone reads it"
    )

    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """The adapters."""
        return self.added(shape, settings)

    def added(self, shape: Shape, settings: MethodSettings) -> float:
        """Of each layer: down, up, and a norm's weights and biases."""
        return 2.0 * shape.width * (settings.adapter_dim + 1) * shape.layers

    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Freeze the base and add adapters that change nothing yet. RecipeFailure(BAD_INPUT) where it has some."""
        import torch
        from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
        from nemo.core.classes.mixins.adapter_mixins import get_registered_adapter
        from omegaconf import open_dict

        if any(_IN_STATE in name for name in model.state_dict()):
            message = f"method: {NAME}: this base has such adapters already: start from the base that it was made of"
            raise RecipeFailure(RecipeExit.BAD_INPUT, message)
        model.replace_adapter_compatible_modules(verbose=False)
        with open_dict(model.cfg):  # NeMo's own change of it knows the full path alone
            model.cfg.encoder._target_ = get_registered_adapter(type(model.encoder)).adapter_class_path
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU: the same on every machine
            torch.manual_seed(settings.seed)
            config = LinearAdapterConfig(in_features=model.encoder.d_model, dim=settings.adapter_dim)
            model.add_adapter(f"encoder:{NAME}", config)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_IN_STATE in name)

    def before_batch(self, model: Any) -> None:
        """Batch norms keep the base's statistics."""
        still_batch_norms(model.encoder)

    def learned(self, model: Any) -> dict[str, Tensor]:
        """The adapters."""
        return {name: tensor for name, tensor in model.state_dict().items() if _IN_STATE in name}
