"""The TDT loss where NeMo has none: on a CPU.

NeMo's `tdt` raises without CUDA and its `tdt_pytorch` calls `.cuda()`. On CUDA NeMo's own loss stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from recipes.contract import RecipeExit, RecipeFailure


class CpuTdtLoss(nn.Module):  # type: ignore[misc]
    """transformers' pure-torch TDT loss behind the interface that NeMo's RNNTLoss calls.

    The formula is equation 7 of "Efficient Sequence Transduction by Jointly Predicting Tokens and Durations"
    (arXiv:2304.06795), with the logit under-normalisation `sigma`. NeMo's `omega` (now and then an RNN-T step
    instead), `fastemit_lambda` and `clamp` have no counterpart here.
    """

    def __init__(self, blank: int, durations: Sequence[int], sigma: float) -> None:
        super().__init__()
        self.blank, self.durations, self.sigma = blank, list(durations), sigma
        try:  # here, so that an environment without it can still train all but TDT on a CPU
            from transformers.loss.loss_tdt import tdt_loss
        except ImportError as error:
            message = "a TDT base on a CPU needs transformers 5.23 or later (its TDT loss), or take a GPU"
            raise RecipeFailure(RecipeExit.BAD_INPUT, f"base: {message}") from error
        self.tdt_loss = tdt_loss
        self.reduction: str | None = None  # RNNTLoss sets and restores it; it reduces the losses itself

    def forward(
        self, acts: torch.Tensor, labels: torch.Tensor, act_lens: torch.Tensor, label_lens: torch.Tensor
    ) -> torch.Tensor:
        """Losses a row, shape (B,), in nats.

        acts (B, T, U+1, V+1+D) logits of tokens, blank and D durations; labels (B, U); lengths (B,).
        """
        tokens, durations = acts.split([acts.shape[-1] - len(self.durations), len(self.durations)], dim=-1)
        losses: torch.Tensor = self.tdt_loss(
            token_logits=tokens,
            duration_logits=durations,
            targets=labels.long(),
            logit_lengths=act_lens.long(),
            target_lengths=label_lens.long(),
            blank_token_id=self.blank,
            durations=self.durations,
            sigma=self.sigma,
            reduction="none",
        )
        return losses


def use_cpu_loss(model: Any) -> bool:
    """Give a TDT model (hybrids too) a loss that runs on CPU, leaving its config as it is; True if it did.

    Raises RecipeFailure(BAD_INPUT) when the installed transformers is too old to have the loss.
    """
    name = model.cfg.get("loss", {}).get("loss_name") if model.cfg.get("loss") else None
    if name != "tdt" or not hasattr(model, "joint"):
        return False
    arguments = model.cfg.loss.get("tdt_kwargs") or {}
    durations = list(arguments.get("durations") or model.cfg.model_defaults.tdt_durations)
    blank = model.joint.num_classes_with_blank - 1 - model.joint.num_extra_outputs
    model.loss._loss = CpuTdtLoss(blank, durations, float(arguments.get("sigma", 0.0)))
    model.loss._force_float32 = True
    return True
