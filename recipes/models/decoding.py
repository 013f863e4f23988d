"""Transcribes files with a model and leaves the model exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def unchanged_modes(model: Any) -> Iterator[None]:
    """Put back each module's train or eval mode and each parameter's requires_grad on leaving.

    NeMo's transcribe() restores one mode for the whole model, which flips a frozen encoder back to training.
    """
    modes = {name: module.training for name, module in model.named_modules()}
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        yield
    finally:
        for name, module in model.named_modules():
            module.training = modes.get(name, module.training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trainable.get(name, parameter.requires_grad))


def transcribe_files(model: Any, paths: Sequence[str], batch_size: int) -> list[str]:
    """One hypothesis text a file, in order, by NeMo's offline transcribe() (greedy as the model is set up)."""
    found = hypotheses_of_files(model, paths, batch_size)
    return [(hyp.text if hasattr(hyp, "text") else hyp) or "" for hyp in found]


def hypotheses_of_files(model: Any, paths: Sequence[str], batch_size: int, *, confidences: bool = False) -> list[Any]:
    """NeMo's best hypothesis a file, in order. `confidences`: with those that the decoding is set up to keep."""
    if not paths:
        return []
    asked = {"return_hypotheses": True} if confidences else {}
    with unchanged_modes(model):
        found = model.transcribe(list(paths), batch_size=batch_size, verbose=False, num_workers=0, **asked)
    if isinstance(found, tuple):  # hybrids and RNNT of older NeMo: (best, all)
        found = found[0]
    return list(found)


def set_greedy_graphs(model: Any, use_cuda_graphs: bool) -> None:
    """Switch CUDA graphs of the transducer's greedy decoder on or off; nothing to do for CTC or on CPU.

    The model's config keeps what it said, so that a saved model decodes where it goes as its base did.
    """
    from omegaconf import OmegaConf, open_dict

    if not hasattr(model, "joint") or next(model.parameters()).device.type != "cuda":
        return
    decoding = OmegaConf.create(OmegaConf.to_container(model.cfg.decoding))
    with open_dict(decoding):
        greedy = decoding.get("greedy") or {}
        decoding.greedy = {**greedy, "use_cuda_graph_decoder": use_cuda_graphs}
    said = model.cfg.decoding
    model.change_decoding_strategy(decoding, verbose=False)
    with open_dict(model.cfg):
        model.cfg.decoding = said
