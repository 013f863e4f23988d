"""The processes that train together, seen from one of them: what the first decides, all do.

With one process nothing here does anything, and torch.distributed is not touched. With several, what is decided goes
through a group of its own (gloo, on the CPU), because the others wait there for as long as the first one validates
and saves, and a GPU's collectives do not wait so long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from recipes.contract import RecipeExit, RecipeFailure

#: How long the others wait for the first; a machine that is gone is noticed by what started them (see leading.py).
PATIENCE = timedelta(days=2)

T = TypeVar("T")


class World:
    """One process that trains alone."""

    rank, size, devices, nodes = 0, 1, 1, 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The first process's value, in all."""
        return value

    def share_tensors(self, value: Any) -> Any:
        """The first process's nested tensors and plain values, in all; on the host."""
        return value

    def add(self, *values: float) -> tuple[float, ...]:
        """Each value, summed over all."""
        return values

    def least(self, value: float | None) -> float | None:
        """The least of all; None when one does not know."""
        return value

    @contextmanager
    def alone(self, model: Any) -> Iterator[None]:
        """While the first process works and the others wait: no library may look for them meanwhile."""
        yield

    def trainer_settings(self) -> dict[str, Any]:
        """What Lightning's Trainer needs to train so."""
        return {"devices": 1}


class ManyProcesses(World):
    """One of several processes, as torch's RANK, WORLD_SIZE, LOCAL_RANK, ... in the environment say."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.devices = int(os.environ["LOCAL_WORLD_SIZE"])
        self.nodes = self.size // self.devices
        local, on_gpu = int(os.environ["LOCAL_RANK"]), torch.cuda.is_available()
        if on_gpu:
            if torch.cuda.device_count() < self.devices:
                words = f"devices: {self.devices} were rented, {torch.cuda.device_count()} GPUs answer here"
                raise RecipeFailure(RecipeExit.BAD_INPUT, words)
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if on_gpu else "gloo")
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def share(self, value: T) -> T:
        """The first process's value, in all."""
        held = [value if self.is_first else None]
        dist.broadcast_object_list(held, src=0, group=self._group)
        return held[0]  # type: ignore[return-value]

    def share_tensors(self, value: Any) -> Any:
        """The first process's nested tensors and plain values, in all; on the host. One tensor at a time."""
        tensors: list[torch.Tensor] = []
        shape = self.share(_without_tensors(value, tensors) if self.is_first else None)
        return self._filled(shape, iter(tensors))

    def _filled(self, shape: Any, mine: Any) -> Any:
        if isinstance(shape, _Tensor):
            made = next(mine).contiguous() if self.is_first else torch.empty(shape.size, dtype=shape.dtype)
            dist.broadcast(made, src=0, group=self._group)
            return made
        if isinstance(shape, dict):
            return type(shape)((key, self._filled(inner, mine)) for key, inner in shape.items())
        if isinstance(shape, list | tuple):
            return type(shape)(self._filled(inner, mine) for inner in shape)
        return shape

    def add(self, *values: float) -> tuple[float, ...]:
        """Each value, summed over all."""
        held = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(held, group=self._group)
        return tuple(held.tolist())

    def least(self, value: float | None) -> float | None:
        """The least of all; None when one does not know."""
        held = torch.tensor(-1.0 if value is None else value, dtype=torch.float64)
        dist.all_reduce(held, op=dist.ReduceOp.MIN, group=self._group)
        return None if held < 0 else float(held)

    @contextmanager
    def alone(self, model: Any) -> Iterator[None]:
        """While the first process works and the others wait: no library may look for them meanwhile.

        NeMo's encoders agree on the longest clip in every forward pass where torch.distributed is initialized
        (ConformerEncoder.update_max_seq_length), in transcribing too, and would wait for ever. Its transcribe() reads
        only this process's part of the files, by the model's world_size (ctc_bpe_models.py) or, in Lhotse's samplers,
        by the environment. NeMo 3.0.0, Lhotse 1.33.
        """
        initialized, size = dist.is_initialized, model.world_size
        told = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE") if name in os.environ}
        dist.is_initialized, model.world_size = (lambda: False), 1
        try:
            yield
        finally:
            dist.is_initialized, model.world_size = initialized, size
            os.environ.update(told)

    def trainer_settings(self) -> dict[str, Any]:
        """What Lightning's Trainer needs to train so.

        Unused parameters are looked for: a base may have some that its loss does not reach, and that would end the
        second step with an error after the machine was paid for.
        """
        from lightning.pytorch.plugins.environments import LightningEnvironment
        from lightning.pytorch.strategies import DDPStrategy

        strategy = DDPStrategy(
            cluster_environment=LightningEnvironment(), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        return {"devices": self.devices, "num_nodes": self.nodes, "strategy": strategy}


class _Tensor:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.size, self.dtype = tuple(tensor.shape), tensor.dtype


def _without_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    """The same with each tensor's size and type in its place; the tensors go to the list, in order."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _Tensor(value)
    if isinstance(value, dict):
        return {key: _without_tensors(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_tensors(inner, tensors) for inner in value)
    return value
