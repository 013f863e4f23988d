"""Is tuning worth it? The decision before a cycle, from a manifest and the base model's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from recipes.manifest import ManifestError, text_of
from recipes.scoring.align import rate, word_edits
from recipes.scoring.keywords import hit
from recipes.scoring.normalise import nvidia
from recipes.scoring.score import Leaf, ker_leaf

MIN_ROWS, MIN_CATEGORY_ROWS = 100, 5
HIGH, LOW = Fraction(3, 10), Fraction(1, 10)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """`decision` is tune, expand, harden, fix_pronunciation or grow; `reasons` in plain words."""

    decision: str
    reasons: list[str]
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def go(self) -> bool:
        """Whether to tune."""
        return self.decision == "tune"

    def as_json(self) -> dict[str, Any]:
        """The gate's JSON: decision, reasons, numbers."""
        return {"decision": self.decision, "reasons": self.reasons, "numbers": self.numbers}


def gate(manifest: Sequence[Row], baseline: Sequence[Row], priority: Sequence[str] = (), cycle: int = 1) -> Gate:
    """Decide by the rules of NVIDIA's clinical evaluation, whose thresholds are for its own `nvidia` mode.

    `manifest` is the whole set (it is what must have 100 rows, and 5 in every priority category);
    `baseline` holds the per_sample rows of the base model, over all of it or only its held-out part.
    `priority` names `entity_category` values; without it every row with a term counts. Without terms the
    same thresholds go by WER (mean of per-row WER, `nvidia` mode).

    In this order: too few rows: grow. Missed < 0.1 on merriam-webster rows and > 0.3 on magpie_g2p rows:
    fix_pronunciation. Missed > 0.3: tune. 0.1 to 0.3, both included: expand in cycle 1, tune later.
    < 0.1: harden. Raises ManifestError for baseline rows the manifest lacks, and for a misspelt category.
    """
    known = {text_of(row, "audio_filepath", "manifest", n): row for n, row in enumerate(manifest, 1)}
    for row in baseline:
        if row.get("audio_filepath") not in known:
            raise ManifestError(
                "baseline", None, f"{row.get('audio_filepath')} is not in the manifest.",
                key="audio_filepath", fix="Score the base model on rows of this manifest.",
            )  # fmt: skip
    counts = Counter(str(row["entity_category"]) for row in manifest if row.get("entity_category") is not None)
    _check_names(priority, counts)
    # What a row is comes from the manifest; what was heard, from the baseline.
    heard = ("pred_text", "wer", "ker", "ker_nvidia")
    scored = [
        {**row, **{key: value for key, value in known[row["audio_filepath"]].items() if key not in heard}}
        for row in baseline
    ]
    chosen = [row for row in scored if not priority or row.get("entity_category") in priority]
    by_terms = any(row.get("term") for row in manifest)
    numbers = _numbers(chosen, by_terms, priority or sorted(counts))
    numbers |= {
        "rows": len(manifest),
        "scored_rows": len(scored),
        "category_rows": dict(counts),
        "cycle": cycle,
    }
    few = _too_few(len(manifest), counts, priority, numbers["leaf"], by_terms)
    if few:
        return Gate("grow", few, numbers)
    leaf: Leaf = numbers["leaf"]
    what = "Keywords missed" if by_terms else "WER"
    where = f" in {', '.join(priority)}" if priority else ""
    said = f"{what}{where}: {_percent(leaf)} of {leaf['total']} scored rows"
    beside = numbers["ker_clinical"]
    if by_terms and beside:
        said += f" (nvidia mode; clinical mode {_percent(beside)})"
    reasons = [said + ".", f"{len(manifest)} rows in the manifest, enough to tune on."]
    for name, category in numbers["ker_by"]["entity_category"].items():
        if by_terms and exact(leaf) <= HIGH < exact(category["nvidia"]):
            reasons.append(f"{name} alone is above 30%: to go by it, gate with --priority {name}.")
    easy, hard = (numbers["ker_by"]["ipa_source"].get(s) for s in ("merriam-webster", "magpie_g2p"))
    if easy and hard and exact(easy["nvidia"]) < LOW and exact(hard["nvidia"]) > HIGH:
        reasons.append(
            f"Rows voiced from merriam-webster are missed {_percent(easy['nvidia'])}, those from magpie_g2p "
            f"{_percent(hard['nvidia'])}: mend the pronunciations, do not tune the model."
        )
        return Gate("fix_pronunciation", reasons, numbers)
    return _by_threshold(exact(leaf), reasons, numbers, cycle)


def exact(leaf: Leaf) -> Fraction:
    """A leaf's rate without rounding, so that a value on a threshold is on it."""
    errors, total, value = leaf.get("errors"), leaf.get("total"), leaf.get("rate")
    if isinstance(errors, int) and isinstance(total, int) and total > 0:
        ratio = Fraction(errors, total)
        if value is None or abs(float(ratio) - value) < 1e-6:
            return ratio
    return Fraction(repr(round(float(value or 0), 12)))


def _by_threshold(value: Fraction, reasons: list[str], numbers: dict[str, Any], cycle: int) -> Gate:
    if value > HIGH:
        return Gate("tune", [*reasons, "Above 30%: there is something to win."], numbers)
    if value < LOW:
        return Gate(
            "harden", [*reasons, "Below 10%: make the evaluation harder before paying for training."], numbers
        )
    if cycle <= 1:
        return Gate("expand", [*reasons, "Between 10% and 30% in cycle 1: add data of this kind first."], numbers)
    return Gate("tune", [*reasons, f"Between 10% and 30% in cycle {cycle}: tune."], numbers)


def _too_few(
    rows: int, counts: Mapping[str, int], priority: Sequence[str], leaf: Leaf | None, by_terms: bool
) -> list[str]:
    few = []
    if rows < MIN_ROWS:
        few.append(f"{rows} rows in the manifest, {MIN_ROWS} needed: add {MIN_ROWS - rows}.")
    for name in priority:
        if counts.get(name, 0) < MIN_CATEGORY_ROWS:
            lacking = MIN_CATEGORY_ROWS - counts.get(name, 0)
            few.append(f"{counts.get(name, 0)} rows of {name}, {MIN_CATEGORY_ROWS} needed: add {lacking}.")
    if leaf is None and not few:
        few.append(f"The baseline has no {'row with a term' if by_terms else 'row'} to go by: score more rows.")
    return few


def _numbers(rows: list[dict[str, Any]], by_terms: bool, categories: Iterable[str]) -> dict[str, Any]:
    compatible = [_ker(row, "nvidia") for row in rows]
    clinical = [_ker(row, "clinical") for row in rows]
    groups: dict[str, dict[str, dict[str, Leaf | None]]] = {"entity_category": {}, "ipa_source": {}}
    for group, names in (
        ("entity_category", categories),
        ("ipa_source", {str(r.get("ipa_source")) for r in rows}),
    ):
        for name in sorted(names):
            inside = [i for i, row in enumerate(rows) if str(row.get(group)) == name]
            leaf = ker_leaf(compatible[i] for i in inside)
            if leaf and name != "None":
                groups[group][name] = {"nvidia": leaf, "clinical": ker_leaf(clinical[i] for i in inside)}
    wer, micro = _wer(rows)
    ker = ker_leaf(compatible)
    return {
        "metric": "ker" if by_terms else "wer",
        "leaf": ker if by_terms else wer,
        "ker_nvidia": ker,
        "ker_clinical": ker_leaf(clinical),
        "wer": wer,
        "wer_micro": micro,
        "ker_by": groups,
        "thresholds": {"high": 0.3, "low": 0.1, "rows": MIN_ROWS, "category_rows": MIN_CATEGORY_ROWS},
    }


def _ker(row: Row, mode: str) -> int | None:
    """The row's KER from its text, or as the row file states it when it carries no transcript."""
    term, heard = row.get("term"), row.get("pred_text")
    if not isinstance(term, str) or not term.strip():
        return None  # a row without a term says nothing about keywords, in either mode
    if isinstance(heard, str):
        found = hit(term, heard, mode)
        return None if found is None else int(not found)
    stated = row.get("ker_nvidia", row.get("ker")) if mode == "nvidia" else row.get("ker")
    return None if stated is None else int(bool(stated))


def _wer(rows: list[dict[str, Any]]) -> tuple[Leaf | None, Leaf | None]:
    """WER in `nvidia` mode: the mean of per-row WER, and beside it the micro average."""
    each: list[Fraction] = []
    errors = words = 0
    for row in rows:
        if isinstance(row.get("text"), str) and isinstance(row.get("pred_text"), str):
            edits = word_edits(nvidia(row["text"]).split(), nvidia(row["pred_text"]).split())
            each.append(Fraction(edits.errors, edits.words or 1))
            errors, words = errors + edits.errors, words + edits.words
        elif isinstance(row.get("wer"), (int, float)):
            each.append(Fraction(repr(row["wer"])))
    if not each:
        return None, None
    summed = sum(each, Fraction(0))
    whole = summed.denominator == 1
    macro: Leaf = {
        "errors": int(summed) if whole else float(summed), "total": len(each),
        "rate": float(summed / len(each)), "ci95": None,
    }  # fmt: skip
    return macro, {"errors": errors, "total": words, "rate": rate(errors, words), "ci95": None}


def _check_names(priority: Sequence[str], counts: Mapping[str, int]) -> None:
    for name in priority:
        close = get_close_matches(name, list(counts), n=1, cutoff=0.75)
        if name not in counts and close:
            raise ManifestError(
                "--priority", None, f"no row has the category {name!r}.", key="entity_category", value=name,
                fix=f"Did you mean {close[0]}?",
            )  # fmt: skip


def _percent(leaf: Leaf) -> str:
    return f"{100 * (leaf['rate'] or 0):.1f}%"
