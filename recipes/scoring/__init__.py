"""Measuring transcripts: WER, CER, KER, SER with intervals, and the decisions before and after tuning."""

from __future__ import annotations

from recipes.scoring.decide import Decision, compare, decide
from recipes.scoring.files import read_pair, read_per_sample, read_score, write_score
from recipes.scoring.gate import Gate, gate
from recipes.scoring.intervals import bootstrap_rate, mcnemar, paired_rates, wilson
from recipes.scoring.keywords import hit
from recipes.scoring.normalise import MODES, clinical, normaliser, nvidia
from recipes.scoring.score import Score, score_rows

__all__ = [
    "MODES", "Decision", "Gate", "Score", "bootstrap_rate", "clinical", "compare", "decide", "gate", "hit",
    "mcnemar", "normaliser", "nvidia", "paired_rates", "read_pair", "read_per_sample", "read_score",
    "score_rows", "wilson", "write_score",
]  # fmt: skip
