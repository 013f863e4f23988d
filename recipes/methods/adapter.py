"""The adapter file: what was learned, alone, and all that it takes to put it into its base anywhere.

adapter.safetensors   the tensors, and in its header under `adapter` the JSON of AdapterConfig
adapter.json          the same JSON beside it, for people and other programs; merging does not read it

Tensors are named by their place in the base. `LAYER.lora_A.weight` (rank x inputs) and `LAYER.lora_B.weight`
(outputs x rank) are added to `LAYER.weight` as alpha / rank * B @ A, PEFT's own convention; where there is a
`LAYER.lora_magnitude` (outputs), the rows of the sum are then made of that length. `LAYER.ia3_l` (outputs x 1, or
1 x inputs) multiplies `LAYER.weight` and, of the outputs, `LAYER.bias`. Any other tensor takes the place of the
base's tensor of that name (the decoder and joint of `lora_decoder` and `frozen_encoder`).
A safetensors file holds numbers and text alone: nothing in it can run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recipes.contract import write_atomic
from recipes.methods.contract import MethodName
from recipes.models.digests import weights_digest

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER, CONFIG = "adapter.safetensors", "adapter.json"
_HEADER = "adapter"  # the key in the file's own metadata
SHA256 = "^[0-9a-f]{64}$"


class BadAdapter(Exception):  # noqa: N818  (says what it is about)
    """An adapter file that we will not use; the message names the file, what is wrong and the fix."""


class BaseOfAdapter(BaseModel):
    """The model that an adapter was learned on."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="pretrained name, or the file's own name without its folder")
    sha256: str | None = Field(pattern=SHA256, description="of the .nemo; null for a pretrained name")
    weights_sha256: str = Field(pattern=SHA256, description="of its tensors, however they are packed (digests.py)")


class AdapterConfig(BaseModel):
    """What an adapter is, and of what."""

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    method: MethodName
    base: BaseOfAdapter
    rank: int | None = Field(ge=1, description="of the low-rank matrices; null where there are none")
    alpha: float | None = Field(gt=0, description="their product is scaled by alpha / rank")
    targets: list[str] = Field(description="names of the adapted layers in each layer of the encoder")
    merged_weights_sha256: str = Field(
        pattern=SHA256, description="of the merged model's tensors: the same wherever it is merged"
    )
    content_sha256: str = Field("", pattern=f"{SHA256}|^$", description="of the tensors and of all else here")

    @property
    def scaling(self) -> float:
        """What the low-rank products are multiplied by."""
        return self.alpha / self.rank if self.alpha and self.rank else 0.0

    def digest(self, tensors: Mapping[str, Tensor]) -> str:
        """What `content_sha256` is where nothing has been damaged."""
        told = self.model_dump_json(exclude={"content_sha256"})
        return hashlib.sha256(f"{told}\n{weights_digest(tensors)}".encode()).hexdigest()


def write_adapter(folder: Path, config: AdapterConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write adapter.safetensors, whole or not at all, and adapter.json; `content_sha256` is filled in."""
    from safetensors.torch import save

    config = config.model_copy(update={"content_sha256": config.digest(tensors)})
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{ADAPTER}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            file.write(save(dict(tensors), metadata={_HEADER: config.model_dump_json()}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / ADAPTER)
    finally:
        part.unlink(missing_ok=True)
    write_atomic(folder / CONFIG, config.model_dump_json(indent=1) + "\n")


def read_adapter(path: Path) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """The config and tensors of an adapter file, as they were written; raises BadAdapter for any other file."""
    import torch
    from safetensors import SafetensorError, safe_open

    fix = "take the adapter home again, or the merged .nemo"
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            told = (file.metadata() or {}).get(_HEADER)
            if told is None:
                raise BadAdapter(f"{path}: not an adapter of ours: its header has no {_HEADER!r}")
            config = AdapterConfig.model_validate_json(told)
            tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadAdapter(f"{path}: damaged, or no safetensors file ({error}); {fix}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(whole header)"
        raise BadAdapter(f"{path}: header: {key}: {first['msg']} (it is {first['input']!r:.80}); {fix}") from error
    found = config.digest(tensors)
    if found != config.content_sha256:
        raise BadAdapter(f"{path}: damaged: content_sha256 is {config.content_sha256}, not {found}; {fix}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadAdapter(f"{path}: {name} holds NaN or infinity: merging would spoil the base")
    return config, tensors
