"""What a teacher heard in one clip, or in one piece of it, and how sure it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Heard:
    """`confidence` is 0-1, a mean over `tokens`: recipes/pseudo_label/nemo.py and whisper.py say of what.

    Of a Whisper also its mean token log-probability and the probability that there was no speech; `silent` is what
    both together say.
    """

    text: str
    tokens: int
    confidence: float
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    silent: bool = False
    fault: str = ""  # why its audio could not be read after all

    def as_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return dict(self.__dict__)


def joined(pieces: Sequence[Heard]) -> Heard:
    """One clip's from its pieces': means weighted by tokens; the text of a silent piece is left out, as Whisper does.

    A clip of silent pieces alone stays silent, with their text.
    """
    if len(pieces) == 1:
        return pieces[0]
    kept = [piece for piece in pieces if not piece.silent] or list(pieces)
    tokens = sum(piece.tokens for piece in kept)
    text = " ".join(piece.text for piece in kept if piece.text)
    speech = [piece.no_speech_prob for piece in kept if piece.no_speech_prob is not None]
    logprobs = [piece.avg_logprob for piece in kept if piece.avg_logprob is not None]
    if len(logprobs) == len(kept):  # a mean of logarithms: its exponent is the confidence
        mean = sum(piece.tokens * (piece.avg_logprob or 0.0) for piece in kept) / max(1, tokens)
        confidence, logprob = math.exp(mean), mean
    else:
        confidence, logprob = sum(piece.tokens * piece.confidence for piece in kept) / max(1, tokens), None
    return Heard(text, tokens, confidence, logprob, max(speech, default=None), all(piece.silent for piece in pieces))
