"""How far a language that is learned from nothing has come: random, mute, basic, major, converged.

The stages are those that people who added languages to Parakeet saw, in this order, over 100,000 steps and more:
random characters; nothing at all (up to 5,000 steps); basic characters (to 15,000); most characters, at a WER of 25
to 35% (to 30,000); convergence. A tiny model runs through them in hundreds of steps, and may skip some. Silence early
on is no fault, as long as it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rapidfuzz.distance import Levenshtein

Stage = Literal["random", "mute", "basic", "major", "converged"]

#: Hypotheses that hold less than this share of the characters there are to write: it says nothing.
MUTE_SHARE = 0.1
#: From this character error rate on, what is written has hardly anything to do with what is said.
RANDOM_CER = 0.75
#: Below this WER most of the words come out right.
MAJOR_WER = 0.35
#: Of so many validations in a row none was better than the one before them by more than this share of it.
CONVERGED_VALIDATIONS, CONVERGED_GAIN = 3, 0.02

WORDS: dict[Stage, str] = {
    "random": "it writes, but not what is said",
    "mute": "it writes next to nothing: usual early on, and it ends by itself",
    "basic": "the first words and letters come out right",
    "major": f"most words come out right (WER at most {MAJOR_WER:.0%})",
    "converged": f"the last {CONVERGED_VALIDATIONS} validations gained next to nothing",
}


def stage_of(references: Sequence[str], hypotheses: Sequence[str], wers: Sequence[float]) -> Stage:
    """The stage at a validation: its texts, and the WER of every validation so far, this one last."""
    said, written = sum(map(len, references)), sum(map(len, hypotheses))
    if written < MUTE_SHARE * said:
        return "mute"
    if wers[-1] <= MAJOR_WER:
        return "converged" if _has_converged(wers) else "major"
    errors = sum(Levenshtein.distance(r, h) for r, h in zip(references, hypotheses, strict=True))
    return "random" if errors >= RANDOM_CER * max(1, said) else "basic"


def _has_converged(wers: Sequence[float]) -> bool:
    if len(wers) <= CONVERGED_VALIDATIONS:
        return False
    before = min(wers[:-CONVERGED_VALIDATIONS])
    return before <= MAJOR_WER and min(wers[-CONVERGED_VALIDATIONS:]) >= (1 - CONVERGED_GAIN) * before
