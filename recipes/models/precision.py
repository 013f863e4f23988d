"""Which number format to train in, and what to do when the machine cannot: bf16-mixed, then 32, then less at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from recipes.contract import RecipeExit, RecipeFailure

_CPU_MEMORY = (
    "can't allocate memory",
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "could not create a primitive",  # how oneDNN says it
)
_FEATURES = ("preprocessor", "spec_augmentation", "loss", "wer")  # no weights that learn
_GPU_MEMORY = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def choose_precision(asked: str) -> tuple[str, str | None]:
    """Lightning's precision for this machine, and a warning when it is not what was asked for.

    auto is bf16-mixed on a GPU that computes in bfloat16 (Ampere and later), else 32. An explicit bf16-mixed on
    a GPU without it, or any mixed precision on CPU, becomes 32. bf16-true stays (RecipeFailure on such a GPU): what
    it saves is why it was asked for.
    """
    if asked == "bf16-true":
        if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
            why = f"precision bf16-true: {torch.cuda.get_device_name()} does not compute in bf16"
            raise RecipeFailure(RecipeExit.BAD_INPUT, why)
        return asked, None
    if not torch.cuda.is_available():
        warning = f"precision {asked} needs a GPU: training in 32" if asked not in ("auto", "32") else None
        return "32", warning
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return ("bf16-mixed", None) if has_bf16 else ("32", None)
    if asked == "bf16-mixed" and not has_bf16:
        name = torch.cuda.get_device_name()
        return "32", f"{name} does not compute in bf16: training in 32 with half the batch, accumulated twice"
    if asked == "16-mixed":
        return asked, "precision 16-mixed can give NaN with TDT and RNNT; then the run falls back to 32"
    return asked, None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the GPU or (as under a memory limit) on the host."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(mark in text for mark in (*_CPU_MEMORY, *_GPU_MEMORY))


def is_unsupported_precision(error: BaseException) -> bool:
    """Whether an error says that an operation has no half-precision kernel here."""
    text = str(error)
    lacking = "not implemented for" in text and ("BFloat16" in text or "Half" in text)
    return isinstance(error, RuntimeError) and lacking


def gpu_memory_gb() -> float | None:
    """GB (10^9 bytes) of the GPU that are free now; None without a GPU."""
    return torch.cuda.mem_get_info()[0] / 1e9 if torch.cuda.is_available() else None


def hold_in_bf16(model: Any) -> None:
    """Cast the weights to bf16, to train them as such; features and batch norms stay float32, statistics and all."""
    for name, part in model.named_children():
        if name in _FEATURES:
            continue
        part.to(torch.bfloat16)
        for module in part.modules():
            if isinstance(module, _BatchNorm):
                module.float()
    features = getattr(model, "preprocessor", None)
    if features is None:
        return
    as_float32 = features.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        signal, lengths = as_float32(*args, **kwargs)
        return signal.to(torch.bfloat16), lengths

    features.forward = forward


def hold_in_float32(model: Any) -> None:
    """Undo `hold_in_bf16`: the same weights, float32 as in the base."""
    vars(model.preprocessor).pop("forward", None)
    model.float()
