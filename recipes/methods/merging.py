"""Adds an adapter into its base: the same bytes on every machine, so that a merge made elsewhere can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recipes.methods.ia3 import SCALE
from recipes.methods.lora import MAGNITUDE, PART_A, PART_B

if TYPE_CHECKING:
    from torch import Tensor


_ROWS = 128  # of a weight at once: they stay in a processor's cache; the sums are the same


class AdapterMisfit(Exception):  # noqa: N818  (says what is wrong)
    """An adapter that does not belong into this model; the message names the tensor and why."""


def merge_into(model: Any, tensors: Mapping[str, Tensor], scaling: float) -> None:
    """Add the low-rank products to the model's weights, scale what has factors, put whole tensors in their places.

    `tensors` as adapter.py has them. Everything is looked at before anything is changed: raises AdapterMisfit.
    """
    import torch

    state = model.state_dict()
    pairs = check_fit(state, tensors)
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            magnitude = tensors.get(name.removesuffix(".weight") + MAGNITUDE)
            state[name].copy_(merged_weight(state[name], a, b, scaling, magnitude))
        for name, tensor in tensors.items():
            if name.endswith(SCALE):
                for part in _scaled_by(name, tensor, state):
                    state[part].copy_(scaled(state[part], tensor))
            elif not name.endswith((PART_A, PART_B, MAGNITUDE)):
                state[name].copy_(tensor)


def check_fit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The low-rank pairs by the weight they belong to; raises AdapterMisfit for what has no place in the base."""
    pairs = {}
    for name, tensor in tensors.items():
        if name.endswith(PART_B):
            if name.removesuffix(PART_B) + PART_A not in tensors:
                raise AdapterMisfit(f"{name} has no {PART_A}")
        elif name.endswith(MAGNITUDE):
            b = tensors.get(name.removesuffix(MAGNITUDE) + PART_B)
            if b is None or tensor.shape != b.shape[:1]:
                has = "no such layer" if b is None else f"{b.shape[0]} outputs"
                raise AdapterMisfit(f"{name}: {_form(tensor)}, and the adapter has {has}")
        elif name.endswith(SCALE):
            _scaled_by(name, tensor, state)
        elif name.endswith(PART_A):
            layer = name.removesuffix(PART_A)
            weight, b = state.get(f"{layer}.weight"), tensors.get(layer + PART_B)
            if weight is None or b is None:
                raise AdapterMisfit(f"{name}: {f'no {PART_B}' if b is None else 'the base has no such layer'}")
            flat = tensor.ndim == b.ndim == weight.ndim == 2 and tensor.shape[0] == b.shape[1]
            if not flat or (b.shape[0], tensor.shape[1]) != tuple(weight.shape):
                shapes = f"{tuple(b.shape)} x {tuple(tensor.shape)}"
                raise AdapterMisfit(f"{layer}: {shapes} is not of the base's shape {tuple(weight.shape)}")
            pairs[f"{layer}.weight"] = (tensor, b)
        elif name not in state or _form(state[name]) != _form(tensor):
            found = _form(state[name]) if name in state else "no such tensor"
            raise AdapterMisfit(f"{name}: {_form(tensor)} in the adapter, {found} in the base")
    return pairs


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _scaled_by(name: str, factors: Tensor, state: Mapping[str, Tensor]) -> list[str]:
    """What IA3's factors scale: a layer's weight, and its bias where they are of its outputs."""
    layer = name.removesuffix(SCALE)
    weight = state.get(f"{layer}.weight")
    if weight is None:
        raise AdapterMisfit(f"{name}: the base has no such layer")
    of_outputs = (weight.shape[0], 1) if weight.ndim == 2 else ()
    if tuple(factors.shape) not in (of_outputs, (1, weight.shape[-1])):
        raise AdapterMisfit(f"{name}: {_form(factors)} are no factors of {tuple(weight.shape)}")
    has_bias = f"{layer}.bias" in state and tuple(factors.shape) == of_outputs
    return [f"{layer}.weight", *([f"{layer}.bias"] if has_bias else [])]


def scaled(tensor: Tensor, factors: Tensor) -> Tensor:
    """tensor * factors, on the host, of the tensor's type; rounded once."""
    factors = factors.detach().cpu().double()
    return (tensor.detach().cpu().double() * (factors if tensor.ndim == 2 else factors.flatten())).to(tensor.dtype)


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scaling: float, magnitude: Tensor | None = None) -> Tensor:
    """weight + scaling * b @ a, on the host, of the weight's type; with a `magnitude`, its rows made of that length.

    Summed rank by rank in float64: the product of two float32 is exact there and the order of the sums is fixed, so
    that every processor gives the same bits. A matrix product sums in an order of its own on each (PEFT's merge()
    differs in the last bits from one machine to another).
    """
    import torch

    rows, columns = b.detach().cpu().double(), a.detach().cpu().double()
    merged = weight.detach().cpu().double()
    for own, some in zip(merged.split(_ROWS), rows.split(_ROWS), strict=True):
        total, product = torch.zeros_like(own), torch.empty_like(own)
        for rank in range(columns.shape[0]):
            total += torch.mul(some[:, rank : rank + 1], columns[rank], out=product)
        own.add_(total.mul_(scaling))
    if magnitude is not None:
        squares = torch.zeros(merged.shape[0], dtype=torch.float64)
        for column in merged.unbind(1):  # in this order everywhere
            squares += column * column
        merged *= (magnitude.detach().cpu().double() / squares.sqrt())[:, None]
    return merged.to(weight.dtype)
