"""Compares the CPU TDT loss with a literal transcription of equation 7 of arXiv:2304.06795, gradients too.

Prints {"loss": largest difference, "gradient": largest difference, "padding": gradient where there is padding}.
"""

from __future__ import annotations

import json
import sys

import torch

from recipes.models.losses import CpuTdtLoss

DURATIONS, VOCABULARY, SIGMA = [0, 1, 2, 3, 4], 7, 0.05


def literal(acts: torch.Tensor, labels: torch.Tensor, frames: list[int], lengths: list[int]) -> torch.Tensor:
    tokens = torch.log_softmax(acts[..., : VOCABULARY + 1], -1) - SIGMA
    durations = torch.log_softmax(acts[..., VOCABULARY + 1 :], -1)
    losses = []
    for b, (last_t, last_u) in enumerate(zip(frames, lengths, strict=True)):
        alpha = {(0, 0): torch.zeros(())}
        for t in range(last_t + 1):
            for u in range(last_u + 1):
                ways = []
                for n, skip in enumerate(DURATIONS):
                    before = t - skip
                    if before < 0 or before >= last_t:
                        continue
                    if skip > 0 and (before, u) in alpha:
                        blank = tokens[b, before, u, VOCABULARY] + durations[b, before, u, n]
                        ways.append(alpha[before, u] + blank)
                    if u > 0 and t < last_t and (before, u - 1) in alpha:
                        label = tokens[b, before, u - 1, labels[b, u - 1]] + durations[b, before, u - 1, n]
                        ways.append(alpha[before, u - 1] + label)
                if ways and (t, u) != (0, 0):
                    alpha[t, u] = torch.logsumexp(torch.stack(ways), 0)
        losses.append(-alpha[last_t, last_u])
    return torch.stack(losses)


torch.manual_seed(0)
frames, lengths = [9, 7, 1, 6], [4, 3, 1, 0]
acts = torch.randn(4, 9, 5, VOCABULARY + 1 + len(DURATIONS), dtype=torch.float32, requires_grad=True)
labels = torch.randint(0, VOCABULARY, (4, 4))
expected = literal(acts, labels, frames, lengths)
(expected_gradient,) = torch.autograd.grad(expected.sum(), acts)
found = CpuTdtLoss(VOCABULARY, DURATIONS, SIGMA)(acts, labels, torch.tensor(frames), torch.tensor(lengths))
(gradient,) = torch.autograd.grad(found.sum(), acts)
assert found.shape == (4,)
sys.stdout.write(
    json.dumps(
        {
            "loss": float((found - expected).abs().max()),
            "gradient": float((gradient - expected_gradient).abs().max()),
            "padding": float(gradient[1, 7:].abs().max()),
        }
    )
)
