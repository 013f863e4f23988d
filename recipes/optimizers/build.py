"""Makes the optimizers of few bits and gives them to NeMo by name; AdamW itself is NeMo's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from recipes.contract import RecipeExit, RecipeFailure
from recipes.optimizers.facts import IN_BACKWARD, OptimizerName


def register(optimizer: OptimizerName, *, bf16_weights: bool) -> str:
    """The name under which NeMo's `setup_optimization` finds this optimizer from now on; repeating is safe.

    Also lets a checkpoint of it be loaded. RecipeFailure(BAD_INPUT) where its package is missing.
    """
    if optimizer == "adamw":
        return "adamw"
    try:
        if not bf16_weights:
            from bitsandbytes.optim import AdamW8bit

            name, made = "adamw_8bit_bitsandbytes", AdamW8bit
        else:
            import torchao.optim  # noqa: F401  (its tensors are known to torch.load from here on)

            in_backward = optimizer == IN_BACKWARD
            name = "adamw_8bit_torchao_in_backward" if in_backward else "adamw_8bit_torchao"
            made = AdamW8bitInBackward if in_backward else AdamW8bitOfBf16
    except ImportError as error:
        message = f"optimizer {optimizer} needs the package {error.name}, which is not in this environment"
        raise RecipeFailure(RecipeExit.BAD_INPUT, message) from error
    from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS, register_optimizer

    if name not in AVAILABLE_OPTIMIZERS:
        register_optimizer(name, made, _parameters_of(made))
    return name


class AdamW8bitOfBf16(torch.optim.Optimizer):  # type: ignore[misc]
    """torchao's AdamW8bit with stochastic rounding, one for each parameter, under a learning rate that is a number.

    torchao takes the rate as a tensor only, while schedulers set numbers. Weights in float32, such as those of batch
    norms, are stepped without rounding.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 weight_decay: float = 1e-2) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        from torchao.optim import AdamW8bit

        self._each: dict[torch.Tensor, torch.optim.Optimizer] = {
            parameter: AdamW8bit(
                [parameter], lr=lr, betas=tuple(betas), weight_decay=weight_decay, bf16_stochastic_round=True
            )
            for group in self.param_groups
            for parameter in group["params"]
        }
        self._share_state()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                self._step(group, parameter)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's; the parts see what was loaded."""
        super().load_state_dict(state_dict)
        self._share_state()

    def _share_state(self) -> None:
        for optimizer in self._each.values():
            optimizer.state = self.state

    def _step(self, group: dict[str, Any], parameter: torch.Tensor) -> None:
        if parameter.grad is None:
            return
        optimizer = self._each[parameter]
        optimizer.param_groups[0]["lr"].fill_(group["lr"])
        with _compiled_where_it_can_be():
            optimizer.step()


class AdamW8bitInBackward(AdamW8bitOfBf16):
    """The same, each parameter stepped, and its gradient freed, as soon as that is whole in the backward pass.

    `step` does no more than call its closure: gradients can be neither accumulated nor clipped together.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                before = getattr(parameter, "_stepped_by", None)
                if before is not None:  # of an earlier optimizer of this model: it steps no more
                    before.remove()
                parameter._stepped_by = parameter.register_post_accumulate_grad_hook(partial(self._step_now, number))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run the closure, in whose backward pass the weights move."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()

    def _step_now(self, group: int, parameter: torch.Tensor) -> None:
        self._step(self.param_groups[group], parameter)
        parameter.grad = None


def _compiled_where_it_can_be() -> AbstractContextManager[Any]:
    """torchao compiles its step: on a GPU with a C compiler at hand. Elsewhere the same arithmetic runs as it is."""
    if torch.cuda.is_available() and (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _parameters_of(made: type) -> type:
    """What NeMo keeps beside an optimizer, by the name of its class."""

    @dataclass
    class Parameters:
        lr: float = 1e-3
        betas: tuple[float, float] = (0.9, 0.98)
        weight_decay: float = 0.0

    Parameters.__name__ = Parameters.__qualname__ = f"{made.__name__}_params"
    return Parameters
