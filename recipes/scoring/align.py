"""Edit counts of one row, with rapidfuzz: the alignment that jiwer uses, without jiwer's objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein


class Edits(NamedTuple):
    """Word edits that turn a reference into a hypothesis."""

    substitutions: int
    deletions: int
    insertions: int
    hits: int

    @property
    def errors(self) -> int:
        """Substitutions + deletions + insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def words(self) -> int:
        """Words in the reference."""
        return self.substitutions + self.deletions + self.hits


def word_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """S, D, I and hits of two word lists, as jiwer counts them (minimum edit distance, costs 1/1/1)."""
    if reference == hypothesis:
        return Edits(0, 0, 0, len(reference))
    substitutions = deletions = insertions = 0
    for tag, _, _ in Levenshtein.editops(reference, hypothesis):
        if tag == "replace":
            substitutions += 1
        elif tag == "delete":
            deletions += 1
        else:
            insertions += 1
    return Edits(substitutions, deletions, insertions, len(reference) - substitutions - deletions)


def char_errors(reference: str, hypothesis: str) -> int:
    """Edit distance in characters, spaces included, as jiwer's CER counts."""
    return 0 if reference == hypothesis else int(Levenshtein.distance(reference, hypothesis))


def rate(errors: float, total: int) -> float:
    """Errors over total; over an empty reference, the errors themselves.

    With nothing to recognise, jiwer answers with the number of insertions and kaldialign with infinity.
    We take jiwer's count: it is finite, JSON can hold it, and inventing three words is worse than one.
    """
    return errors / total if total else float(errors)


def word_chunks(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str, str]]:
    """The alignment as (kind, reference words, hypothesis words), kind equal|replace|delete|insert."""
    return [
        (
            op.tag,
            " ".join(reference[op.src_start : op.src_end]),
            " ".join(hypothesis[op.dest_start : op.dest_end]),
        )
        for op in Levenshtein.opcodes(reference, hypothesis)
    ]
