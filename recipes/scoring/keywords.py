"""Whether a keyword was recognised: its words, whole and in a row, in the hypothesis."""

from __future__ import annotations

import re

from recipes.scoring.normalise import clinical_words, normaliser

_APOSTROPHE = re.compile("['\u2019\u2018\u02bc\u201b\uff07`\u00b4\u2032\u02b9\ua78c]")
_ELISIONS = frozenset(["l", "d", "j", "m", "n", "s", "t", "c", "qu"])


def hit(term: str, hypothesis: str, mode: str = "clinical") -> bool | None:
    """Whether `term` counts as recognised in `hypothesis` (both raw text) under `mode`.

    None means that the term says nothing once normalised and is left out of KER. In `nvidia` mode such a
    term counts as recognised, as it does in NVIDIA's own script: a defect kept for compatibility.
    """
    normal = normaliser(mode)
    return hit_normal(term, hypothesis, normal(term), normal(hypothesis), mode)


def hit_normal(term: str, hypothesis: str, normal_term: str, normal_hyp: str, mode: str) -> bool | None:
    """`hit` for text whose normalised forms the caller already has."""
    if not normal_term:
        return True if mode == "nvidia" else None
    if f" {normal_term} " in f" {normal_hyp} ":
        return True
    if mode != "clinical" or not (_APOSTROPHE.search(hypothesis) or _APOSTROPHE.search(term)):
        return False
    # A possessive is the word itself (metoprolol's) or the word with its s (Crohn's, crohns).
    wanted = [_forms(word) for word in clinical_words(term)]
    heard = [_forms(word) for word in clinical_words(hypothesis)]
    return any(
        all(not want.isdisjoint(heard[start + i]) for i, want in enumerate(wanted))
        for start in range(len(heard) - len(wanted) + 1)
    )


def _forms(word: str) -> frozenset[str]:
    """The spellings that one written word stands for."""
    if "'" not in word:
        return frozenset([word])
    joined = word.replace("'", "")
    forms = {joined}
    if word.endswith("'s"):
        forms.add(joined[:-1])
    prefix, _, rest = word.partition("'")
    if prefix in _ELISIONS and len(rest) > 2:  # l'insuline
        forms.add(rest.replace("'", ""))
    return frozenset(forms)
