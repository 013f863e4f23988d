"""What a way to fine-tune says of itself: what learns, how the model is prepared, what is kept, how it merges.

Needs no torch until a model is at hand: the launcher judges offers by the same numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from recipes.contract import RecipeExit, RecipeFailure

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.models.shape import Shape

MethodName = Literal[
    "full", "frozen_encoder", "decoder_only", "lora", "lora_decoder", "dora", "ia3", "bitfit", "linear_adapter"
]
LoraTargets = Literal["attention", "attention_and_feed_forward"]


@dataclass(frozen=True)
class MethodSettings:
    """What the methods read of a spec, under the spec's own names; `auto` is resolved."""

    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_targets: LoraTargets = "attention"
    lora_dropout: float = 0.05
    allow_few_biases: bool = False
    adapter_dim: int = 32
    seed: int = 42

    @property
    def lora_scaling(self) -> float:
        """What a low-rank product is multiplied by before it is added to its weight (alpha / rank)."""
        return self.lora_alpha / self.lora_rank


class TuningMethod(ABC):
    """One way to fine-tune. A mergeable result is a plain model with the base's own keys, whatever was trained."""

    name: ClassVar[MethodName]
    summary: ClassVar[str]
    #: The fields of the spec that only such methods read: to others they mean nothing.
    reads: ClassVar[tuple[str, ...]] = ()
    #: What runs backward through the encoder: its weights' gradients and its inputs', the inputs' alone, or nothing.
    encoder_backward: ClassVar[Literal["weights", "inputs", "none"]]
    #: Whether what was learned is saved alone, too, to be merged into the base anywhere.
    has_adapter: ClassVar[bool] = True
    #: Whether the result is a plain model of the base's size and keys.
    is_mergeable: ClassVar[bool] = True
    #: The peak that `learning_rate: auto` means here; None: by the hours of audio (plan.py).
    learning_rate: ClassVar[float | None] = None
    #: What whoever takes this method should know before the first step.
    warning: ClassVar[str] = ""

    @abstractmethod
    def trained(self, shape: Shape, settings: MethodSettings) -> float:
        """How many parameters learn, for estimates; the count of a run comes from the model."""

    def added(self, shape: Shape, settings: MethodSettings) -> float:
        """How many parameters the method adds to the base while it trains."""
        return 0.0

    @abstractmethod
    def prepare(self, model: Any, settings: MethodSettings) -> None:
        """Make a freshly opened base ready to train: what learns has requires_grad, nothing else has.

        The same base and settings give the same model on every machine. RecipeFailure(BAD_INPUT) for a base that
        this method cannot train.
        """

    def before_batch(self, model: Any) -> None:  # noqa: B027  (most have nothing to do here)
        """Put the parts that must not move into evaluation mode: called before each pass, after any decoding."""

    @abstractmethod
    def learned(self, model: Any) -> dict[str, Tensor]:
        """All of the model's state that training changes, by its keys: what a checkpoint holds. Not copied."""

    def restore(self, model: Any, held: Mapping[str, Tensor]) -> None:
        """Put back what `learned` gave. RecipeFailure(BAD_INPUT) for the state of another method or base."""
        mine = self.learned(model)
        if mine.keys() != held.keys() or any(mine[name].shape != held[name].shape for name in mine):
            raise RecipeFailure(
                RecipeExit.BAD_INPUT,
                f"OUT/checkpoints: not the weights of method {self.name} on this base: remove OUT/checkpoints",
            )
        model.load_state_dict(dict(held), strict=False)

    def adapter(self, model: Any) -> dict[str, Tensor]:
        """What was learned, on the host, under names that say where it belongs in the base (see adapter.py)."""
        state = self.learned(model)
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}

    def unload(self, model: Any) -> None:  # noqa: B027
        """Take out of the model what `prepare` put in: it has the base's modules and keys again."""


def still_batch_norms(encoder: Any) -> None:
    """Every module of the encoder in training mode (dropout is on), its batch norms with the base's statistics."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in encoder.modules():
        module.training = not isinstance(module, _BatchNorm)


def head_state(model: Any) -> dict[str, Tensor]:
    """The state of all but the encoder and the (fixed) features before it."""
    others = ("encoder.", "preprocessor.")
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(others)}
