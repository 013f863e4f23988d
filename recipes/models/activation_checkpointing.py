"""Activation checkpointing: an encoder's layers forget what they made, and make it again on the way back.

Memory is paid with time: each layer's forward pass runs twice. The losses and gradients are the same to the bit on a
CPU: dropout draws the same numbers again, and batch norms do not count a batch twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_PLAIN = "_forward_that_remembers"


def checkpoint_activations(encoder: Any, *, on: bool = True) -> None:
    """Let the subsampling and each layer of a (Fast)Conformer encoder be run again in backward, or not any more.

    Without gradients, as in decoding, nothing changes. An encoder that has neither is left as it is. Repeating is
    safe. Nothing of it is in the model's state or its config.
    """
    for module in (getattr(encoder, "pre_encode", None), *getattr(encoder, "layers", ())):
        if module is None:
            continue
        if on and _PLAIN not in vars(module):
            vars(module)[_PLAIN] = module.forward
            module.forward = partial(_run_again, module)
        elif not on and vars(module).pop(_PLAIN, None) is not None:
            del module.forward  # the class's own is seen again


def _run_again(module: Any, *args: Any, **kwargs: Any) -> Any:
    forward = vars(module)[_PLAIN]
    if not (module.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, module), **kwargs)


def _contexts(module: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first run and of the second."""
    return nullcontext(), _statistics_kept(module)


@contextmanager
def _statistics_kept(module: Any) -> Iterator[None]:
    """Batch norms work on the batch as before, save the same tensors, and add nothing to their running statistics."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
