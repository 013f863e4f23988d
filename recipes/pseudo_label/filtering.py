"""Which of a teacher's texts are kept: each rule with the reason it gives, and the bound of confidence. No torch."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

from recipes.pseudo_label.heard import Heard
from recipes.pseudo_label.sources import Source
from recipes.pseudo_label.spec import PseudoLabelSpec

REASONS = (
    "unreadable", "too_short", "too_long", "empty", "no_speech", "repeats", "compresses", "characters_per_s",
    "low_confidence", "less_confident",
)  # fmt: skip
LONGEST_LOOP = 8  # words of which a loop is made, at most
SILENCE_LOGPROB = -1.0  # openai-whisper 20250625, transcribe.py: a confident text overrules "no speech"
Why = tuple[str, str]  # one of REASONS, and a sentence with the numbers


def before_hearing(source: Source, spec: PseudoLabelSpec) -> Why | None:
    """Why a clip is not even transcribed."""
    if source.clip is None:
        return "unreadable", source.fault
    length_s = source.clip.duration_s
    if length_s < spec.min_clip_s:
        return "too_short", f"{length_s:.2f} s, min_clip_s is {spec.min_clip_s:g}"
    if length_s > spec.max_clip_s:
        return "too_long", f"{length_s:.1f} s, max_clip_s is {spec.max_clip_s:g}"
    return None


def after_hearing(heard: Heard, duration_s: float, spec: PseudoLabelSpec) -> Why | None:
    """Why a text is not kept; the first rule that speaks against it, confidence last."""
    if heard.fault:
        return "unreadable", heard.fault
    if not heard.text.strip():
        return "empty", "nothing was heard"
    if heard.silent:
        return (
            "no_speech",
            f"no-speech probability {heard.no_speech_prob:.2f}, max_no_speech is {spec.max_no_speech:g}",
        )
    times, words = longest_repeat(heard.text)
    if times > spec.max_repeats:
        return "repeats", f"{words!r} {times} times in a row, max_repeats is {spec.max_repeats}"
    ratio = compression_ratio(heard.text)
    if ratio > spec.max_compression_ratio:
        return "compresses", f"compression ratio {ratio:.1f}, max_compression_ratio is {spec.max_compression_ratio:g}"
    pace = len(heard.text.strip()) / duration_s
    if not spec.min_characters_per_s <= pace <= spec.max_characters_per_s:
        bounds = f"{spec.min_characters_per_s:g} to {spec.max_characters_per_s:g}"
        return "characters_per_s", f"{pace:.1f} characters a second, plausible are {bounds}"
    least = spec.least_confidence
    if least is not None and heard.confidence < least:
        return "low_confidence", f"confidence {heard.confidence:.3f}, min_confidence is {least:g}"
    return None


def most_confident(confidences: Sequence[float], share: float) -> set[int]:
    """Positions of the most confident so-and-so many; of equals the earlier ones. Rounded up: never none of some."""
    best = sorted(range(len(confidences)), key=lambda i: (-confidences[i], i))
    return set(best[: math.ceil(round(share * len(confidences), 9))])


def longest_repeat(text: str) -> tuple[int, str]:
    """How often at most some 1 to 8 words stand in a row, and which; case and punctuation do not count."""
    words = plain(text).split()
    most, which = 1, ""
    for size in range(1, min(LONGEST_LOOP, len(words) // 2) + 1):
        run = 0  # words in a row that equal the word `size` before
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if 1 + run // size > most:
                most, which = 1 + run // size, " ".join(words[at - size + 1 : at + 1])
    return most, which


def compression_ratio(text: str) -> float:
    """Bytes over compressed bytes, as openai-whisper measures it (20250625, utils.py, compression_ratio)."""
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw))


def plain(text: str) -> str:
    """Lower case, no punctuation but apostrophes and hyphens inside words, single spaces."""
    kept = re.sub(r"[^\w\s'’-]|_", " ", text.lower())
    return " ".join(word for word in (part.strip("'’-") for part in kept.split()) if word)
