"""Keep the tuned model? The decision after a cycle, from scores before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import numpy as np

from recipes.manifest import ManifestError
from recipes.scoring.gate import exact
from recipes.scoring.intervals import mcnemar, paired_rates, wilson
from recipes.scoring.score import Leaf

KEEP, SAME = Fraction(20, 100), Fraction(5, 100)
MAX_GENERAL_RISE = 0.05
_WORD_ERRORS = ("substitutions", "deletions", "insertions")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """`decision` is keep, expand, grow, no_change or reject_forgets; `deltas` the numbers behind it."""

    decision: str
    reasons: list[str]
    deltas: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The decision's JSON: decision, reasons, deltas, warnings."""
        return {
            "decision": self.decision, "reasons": self.reasons, "deltas": self.deltas,
            "warnings": self.warnings,
        }  # fmt: skip


def decide(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    general_before: Mapping[str, Any] | None = None,
    general_after: Mapping[str, Any] | None = None,
    *,
    max_general_rise: float = MAX_GENERAL_RISE,
    priority: Sequence[str] = (),
    rows: tuple[Sequence[Row], Sequence[Row]] | None = None,
) -> Decision:
    """Decide from score.json contents; `rows` are the two per_sample lists, for intervals and tests.

    The target is KER (of the `priority` categories where named, else of all terms), or micro WER where
    there are no terms; a priority category of which nothing was scored is warned of. Down by 20% or more of
    itself: keep. Down by 5% or more: expand. Less than 5% down, or up by 5% or less: no_change. Up by more
    than 5%: grow. From zero, any rise is up. Whatever was won, a general micro WER that rose by more than
    `max_general_rise` (absolute) is reject_forgets.
    Raises ManifestError where the two scores are not of the same mode or rows, or half of a pair is given.
    """
    warnings = _comparable(before, after, "BEFORE", "AFTER")
    if (general_before is None) != (general_after is None):
        raise ManifestError("general set", None, "one of two scores is missing.", fix="Give both, or neither.")
    named, unscored = _priority(priority, before, after)
    warnings += unscored
    metric, old, new = _target(before, after, named)
    was, now = exact(old), exact(new)
    deltas: dict[str, Any] = {"metric": metric, "target": _delta(old, new), "priority": named}
    paired = compare(*rows) if rows else None
    if rows and paired:
        deltas["paired"] = paired
        chosen = [[row for row in side if row.get("entity_category") in named] for side in rows] if named else rows
        tested = (compare(*chosen) or {}).get(metric)
        if tested:
            deltas["target"] |= {"ci95": tested["ci95"], "p_value": tested["p_value"]}
    elif rows:
        warnings.append("the row files beside the scores do not pair up: no paired test.")
    decision, reason = _by_change(metric, was, now, named)
    reasons = [reason]
    if "p_value" in deltas["target"]:
        p = deltas["target"]["p_value"]
        reasons.append(f"Paired test on the same rows: p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}.")
        if p > 0.05 and decision in ("keep", "expand", "grow"):
            warnings.append(f"the change in {metric.upper()} may be chance (p = {p:.2f}): score more rows.")
    if general_before is None or general_after is None:
        warnings.append("no general set was scored: what was forgotten is not known.")
        return Decision(decision, reasons, deltas, warnings)
    warnings += _comparable(general_before, general_after, "general BEFORE", "general AFTER")
    first, second = _leaf(general_before, "micro", "wer"), _leaf(general_after, "micro", "wer")
    rise = exact(second) - exact(first)
    deltas["general_wer"] = _delta(first, second) | {"max_rise": max_general_rise}
    limit, moved = f"{100 * max_general_rise:g} points", _moved(first, second)
    if rise > Fraction(repr(max_general_rise)):
        reasons.insert(0, f"It forgot: general WER {moved}, more than {limit} up.")
        return Decision("reject_forgets", reasons, deltas, warnings)
    reasons.append(f"General WER {moved}: not up by more than {limit}, so little was forgotten.")
    return Decision(decision, reasons, deltas, warnings)


def compare(before: Sequence[Row], after: Sequence[Row], seed: int = 42) -> dict[str, Any] | None:
    """Paired tests of two systems from per_sample rows: {"rows", "wer", "cer", "ker"}; None if unpaired.

    `wer` and `cer` are `PairedTest`s of the micro rates (permutation p, bootstrap interval). `ker` adds
    `fixed` and `broken` (keywords missed only before, only after) and its p-value is exact McNemar's.
    """
    second = {row["audio_filepath"]: row for row in after}
    if not before or len(second) != len(before) or any(row["audio_filepath"] not in second for row in before):
        return None
    pairs = [(row, second[row["audio_filepath"]]) for row in before]
    found: dict[str, Any] = {"rows": len(pairs), "wer": None, "cer": None, "ker": None}
    for name, keys, total in (("wer", _WORD_ERRORS, "ref_words"), ("cer", ("char_errors",), "ref_chars")):
        if all(isinstance(row.get(key), int) for pair in pairs for row in pair for key in (*keys, total)):
            columns = [[sum(a[k] for k in keys), sum(b[k] for k in keys), a[total]] for a, b in pairs]
            x, y, words = np.asarray(columns, np.float64).T
            test = paired_rates(x, y, words, seed=seed)
            found[name] = test.as_json() if test else None
    misses = [(a["ker"], b["ker"]) for a, b in pairs if a.get("ker") in (0, 1) and b.get("ker") in (0, 1)]
    if misses:
        x, y = np.asarray(misses, np.float64).T
        test = paired_rates(x, y, np.ones(len(misses)), seed=seed)
        fixed = sum(1 for a, b in misses if a and not b)
        broken = sum(1 for a, b in misses if b and not a)
        if test:
            p_value = mcnemar(fixed, broken)
            found["ker"] = {**test.as_json(), "fixed": fixed, "broken": broken, "p_value": p_value}
    return found


def _by_change(metric: str, was: Fraction, now: Fraction, among: Sequence[str]) -> tuple[str, str]:
    name = "Keywords missed" if metric == "ker" else "WER"
    where = f" in {', '.join(among)}" if among and metric == "ker" else ""
    moved = f"{name}{where}: {_pc(was)} → {_pc(now)}"
    if was == now:
        return "no_change", f"{moved}, no change."
    if was == 0:
        return "grow", f"{moved}, up from none: more data before tuning again."
    drop = (was - now) / was
    said = f"{moved}, {'down' if drop > 0 else 'up'} {abs(float(drop)) * 100:.1f}% of itself"
    if drop >= KEEP:
        return "keep", f"{said}: at least 20%, keep it."
    if drop >= SAME:
        return "expand", f"{said}: between 5% and 20%, expand the data for the next cycle."
    if drop >= -SAME:
        return "no_change", f"{said}: within 5%, no change to speak of."
    return "grow", f"{said}: worse. It learned the rows by heart; grow the manifest, do not tune harder."


def _priority(
    asked: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """The asked categories that both scores have keywords of, and a warning for those that they lack."""
    leaves = [(score.get("ker_by") or {}).get("entity_category") or {} for score in (before, after)]
    sides = [
        {n for n, leaf in side.items() if leaf.get("total") and leaf.get("errors") is not None} for side in leaves
    ]
    scored = sorted(sides[0] & sides[1])
    missing = [name for name in asked if name not in scored]
    for name in missing:
        close = get_close_matches(name, scored, n=1, cutoff=0.75)
        if close:
            raise ManifestError(
                "--priority", None, f"no keyword of {name} was scored.", value=name, fix=f"Did you mean {close[0]}?"
            )
    named = [name for name in asked if name in scored]
    if not missing:
        return named, []
    instead = f"going by {', '.join(named)}" if named else "going by all that was scored"
    return named, [f"no keyword of {', '.join(missing)} was scored: {instead}."]


def _target(before: Mapping[str, Any], after: Mapping[str, Any], named: Sequence[str]) -> tuple[str, Leaf, Leaf]:
    if named:
        return "ker", _pooled(before, named), _pooled(after, named)
    old, new = ((score.get("macro") or {}).get("ker") or {} for score in (before, after))
    if old.get("rate") is not None and new.get("rate") is not None:
        return "ker", old, new
    return "wer", _leaf(before, "micro", "wer"), _leaf(after, "micro", "wer")


def _pooled(score: Mapping[str, Any], named: Sequence[str]) -> Leaf:
    leaves = score["ker_by"]["entity_category"]
    errors, total = (sum(leaves[name][key] for name in named) for key in ("errors", "total"))
    return {"errors": errors, "total": total, "rate": errors / total, "ci95": wilson(errors, total)}


def _leaf(score: Mapping[str, Any], group: str, name: str) -> Leaf:
    leaf = (score.get(group) or {}).get(name)
    if not isinstance(leaf, dict) or not isinstance(leaf.get("rate"), (int, float)):
        raise ManifestError("score file", None, f"it has no {group}.{name}.", key=f"{group}.{name}")
    return leaf


def _comparable(before: Mapping[str, Any], after: Mapping[str, Any], one: str, two: str) -> list[str]:
    modes = before.get("mode"), after.get("mode")
    if None not in modes and modes[0] != modes[1]:
        raise ManifestError(two, None, f"scored in {modes[1]} mode, {one} in {modes[0]} mode.", key="mode")
    digests = before.get("rows_sha256"), after.get("rows_sha256")
    if None not in digests and digests[0] != digests[1]:
        raise ManifestError(
            two, None, f"scored on other rows than {one}: they cannot be compared.", key="rows_sha256"
        )
    if before.get("rows") != after.get("rows"):
        return [f"{one} has {before.get('rows')} rows, {two} {after.get('rows')}: are they the same set?"]
    return []


def _delta(old: Leaf, new: Leaf) -> dict[str, Any]:
    """The change of a rate; its interval here is Newcombe's (1998), from the two intervals, rows unpaired."""
    was, now = exact(old), exact(new)
    change: dict[str, Any] = {
        "before": float(was), "after": float(now), "absolute": float(now - was),
        "relative": float((now - was) / was) if was else None, "ci95": None,
    }  # fmt: skip
    first, second = old.get("ci95"), new.get("ci95")
    if first and second:
        a, b = float(was), float(now)
        down = math.hypot(max(0.0, b - second[0]), max(0.0, first[1] - a))
        up = math.hypot(max(0.0, second[1] - b), max(0.0, a - first[0]))
        change["ci95"] = [float(now - was) - down, float(now - was) + up]
    return change


def _moved(first: Leaf, second: Leaf) -> str:
    return f"{_pc(exact(first))} → {_pc(exact(second))}"


def _pc(value: Fraction) -> str:
    return f"{float(value) * 100:.1f}%"
