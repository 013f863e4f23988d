"""A model beside another system on the same rows: the paired difference with its interval, and row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipes.scoring.decide import Row, compare

COMPARISON = "comparison.json"
AGAINST = "against"  # the folder of the other system's row files


def comparison(rows: Sequence[Row], others: Sequence[Row], against: str, seed: int = 42) -> dict[str, Any]:
    """What comparison.json holds, from the per_sample rows of the model and of the other system.

    `paired`: for wer, cer and ker (null without terms) `before` is the other system's rate, `after` the model's,
    `delta` after minus before (below zero: the model is better), `ci95` its bootstrap interval over the rows, and a
    p-value; see recipes/scoring/intervals.py. `better`, `worse`, `same`: rows by their word errors. `rows`: both
    texts and both counts of word errors, in the manifest's order.
    """
    second = {row["audio_filepath"]: row for row in others}
    listed = []
    for row in rows:
        other = second[row["audio_filepath"]]
        listed.append({
            "audio_filepath": row["audio_filepath"], "text": row["text"], "pred_text": row["pred_text"],
            "against_text": other["pred_text"], "ref_words": row["ref_words"],
            "errors": _errors(row), "against_errors": _errors(other),
        })  # fmt: skip
    warnings = []
    if listed and all(row["against_text"] == row["text"] for row in listed):
        warnings.append(f"{against}: every text is the manifest's own to the letter: is it a manifest?")
    return {
        "against": against,
        "paired": compare(others, rows, seed),
        "better": sum(row["errors"] < row["against_errors"] for row in listed),
        "worse": sum(row["errors"] > row["against_errors"] for row in listed),
        "same": sum(row["errors"] == row["against_errors"] for row in listed),
        "warnings": warnings,
        "rows": listed,
    }


def _errors(row: Row) -> int:
    return int(row["substitutions"]) + int(row["deletions"]) + int(row["insertions"])
