"""WER, CER, KER and SER of a set of rows, micro and macro, with intervals, groups and number errors."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.manifest import ManifestError, text_of
from recipes.scoring.align import char_errors, rate, word_edits
from recipes.scoring.intervals import bootstrap_rate, wilson
from recipes.scoring.keywords import hit_normal
from recipes.scoring.normalise import clinical, normaliser, nvidia
from recipes.scoring.quantities import numbers_wrong, same_in_another_form

Leaf = dict[str, Any]
GROUPS = ("entity_category", "ipa_source", "noise_level", "term")
CARRIED = (
    "term",
    "entity_category",
    "ipa_source",
    "noise_level",
    "voice_id",
    "context_type",
    "split",
    "duration",
)


@dataclass(frozen=True)
class Score:
    """A scored set: `summary` is score.json, `rows` is per_sample.json (a dict a row, in reference order)."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The content of score.json."""
        return self.summary


def score_rows(
    references: Sequence[Mapping[str, Any]],
    hypotheses: Mapping[str, str],
    mode: str = "clinical",
    bootstrap: int | None = None,
    seed: int = 42,
    training: Iterable[str] = (),
) -> Score:
    """Score hypotheses (by `audio_filepath`) against manifest rows.

    `bootstrap` replications give the intervals of WER and CER (0: none; None: 10,000 as kaldialign, 1,000
    beyond 2,000 rows, where they differ by less than a person reads); KER and SER have Wilson's.
    `training` holds the audio paths of training rows: a scored row among them is warned of.
    Raises ManifestError for a duplicate, a row without its counterpart, or text that is not a string, and
    ValueError for an unknown mode.
    """
    normal = normaliser(mode)
    _check_matched(references, hypotheses)
    if bootstrap is None:
        bootstrap = 10_000 if len(references) <= 2_000 else 1_000
    terms: dict[str, tuple[str, str]] = {}
    rows: list[dict[str, Any]] = []
    numbers: list[dict[str, str]] = []
    empty_terms: list[str] = []
    for line, source in enumerate(references, 1):
        path, text = source["audio_filepath"], text_of(source, "text", "references", line)
        said, heard = normal(text), normal(hypotheses[path])
        edits = word_edits(said.split(), heard.split())
        chars = char_errors(said, heard)
        row: dict[str, Any] = {
            "audio_filepath": path, "text": text, "pred_text": hypotheses[path],
            "wer": rate(edits.errors, edits.words), "cer": rate(chars, len(said)),
            "ker": None, "ker_nvidia": None, "ser": int(said != heard),
            "substitutions": edits.substitutions, "deletions": edits.deletions,
            "insertions": edits.insertions, "hits": edits.hits, "ref_words": edits.words,
            "char_errors": chars, "ref_chars": len(said),
        }  # fmt: skip
        row.update((key, source[key]) for key in CARRIED if source.get(key) is not None)
        found = numbers_wrong(text, hypotheses[path], (said, heard) if mode == "clinical" else None)
        term = source.get("term")
        if term is not None:
            if not isinstance(term, str):
                raise ManifestError("references", line, "expected text.", key="term", value=term)
            if term not in terms:
                terms[term] = normal(term), nvidia(term)
            wanted, wanted_nvidia = terms[term]
            _add_ker(row, term, wanted, wanted_nvidia, heard, mode)
            if not wanted:
                empty_terms.append(path)
            elif row["ker"] and not any(kind == "number_format" for _, _, kind in found):
                missed = same_in_another_form(
                    clinical(term), heard if mode == "clinical" else clinical(hypotheses[path])
                )
                found += [(*missed, "number_format")] if missed else []
        numbers += [{"audio_filepath": path, "reference": a, "hypothesis": b, "kind": k} for a, b, k in found]
        rows.append(row)
    warnings = _warnings(rows, empty_terms, mode, set(training))
    return Score(_summary(rows, numbers, warnings, mode, bootstrap, seed), rows)


def ker_leaf(scores: Iterable[int | None]) -> Leaf | None:
    """The KER leaf of per-row scores (0 recognised, 1 missed, None left out); None when none is left."""
    kept = [score for score in scores if score is not None]
    return _proportion(sum(kept), len(kept)) if kept else None


def _add_ker(row: dict[str, Any], term: str, wanted: str, wanted_nvidia: str, heard: str, mode: str) -> None:
    recognised = hit_normal(term, row["pred_text"], wanted, heard, mode)
    row["ker"] = None if recognised is None else int(not recognised)
    if mode == "nvidia":
        row["ker_nvidia"] = row["ker"]
        return
    heard_nvidia = nvidia(row["pred_text"])
    row["ker_nvidia"] = int(not hit_normal(term, row["pred_text"], wanted_nvidia, heard_nvidia, "nvidia"))


def _check_matched(references: Sequence[Mapping[str, Any]], hypotheses: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for line, row in enumerate(references, 1):
        path = text_of(row, "audio_filepath", "references", line)
        if path in seen:
            raise ManifestError("references", line, "this audio is there twice.", key="audio_filepath", value=path)
        if path not in hypotheses:
            raise ManifestError("references", line, f"no hypothesis for {path}.", key="audio_filepath", value=path)
        if not isinstance(hypotheses[path], str):
            raise ManifestError("hypotheses", None, f"{path}: expected text.", key="pred_text")
        seen.add(path)
    for path in hypotheses:
        if path not in seen:
            raise ManifestError("hypotheses", None, f"no reference for {path}.", key="audio_filepath", value=path)


def _summary(
    rows: list[dict[str, Any]],
    numbers: list[dict[str, str]],
    warnings: list[str],
    mode: str,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    edits = {key: sum(row[key] for row in rows) for key in ("substitutions", "deletions", "insertions", "hits")}
    word_errors = [row["substitutions"] + row["deletions"] + row["insertions"] for row in rows]
    by: dict[str, dict[str, Leaf]] = {}
    for group in GROUPS:
        scores: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            if row["ker"] is not None and row.get(group) is not None:
                scores[str(row[group])].append(row["ker"])
        by[group] = {name: _proportion(sum(s), len(s)) for name, s in sorted(scores.items())}
    splits = Counter(str(row["split"]) for row in rows if "split" in row)
    return {
        "mode": mode,
        "rows": len(rows),
        "hours": round(sum(_seconds(row.get("duration")) for row in rows) / 3600, 6),
        "micro": {
            "wer": _resampled(word_errors, [row["ref_words"] for row in rows], bootstrap, seed),
            "cer": _resampled([r["char_errors"] for r in rows], [r["ref_chars"] for r in rows], bootstrap, seed),
        },
        "macro": {
            "wer": _resampled([row["wer"] for row in rows], [1] * len(rows), bootstrap, seed),
            "cer": _resampled([row["cer"] for row in rows], [1] * len(rows), bootstrap, seed),
            "ker": ker_leaf(row["ker"] for row in rows),
            "ser": _proportion(sum(row["ser"] for row in rows), len(rows)),
        },
        "ker_by": by,
        "nvidia_ker": ker_leaf(row["ker_nvidia"] for row in rows),
        "edits": edits,
        "number_errors": numbers,
        "splits": dict(sorted(splits.items())),
        "bootstrap": {"replications": bootstrap, "seed": seed},
        "rows_sha256": _digest(rows),
        "warnings": warnings,
    }


def _resampled(errors: Sequence[float], totals: Sequence[int], replications: int, seed: int) -> Leaf:
    """The leaf of an error rate; its interval is Bisani and Ney's, `bootstrap` says the rest."""
    summed, total = math.fsum(errors), sum(totals)
    whole = int(summed) if all(isinstance(value, int) for value in errors) else summed
    value = rate(summed, total) if errors else None
    leaf: Leaf = {"errors": whole, "total": total, "rate": value, "ci95": None}
    drawn = bootstrap_rate(np.asarray(errors, np.float64), np.asarray(totals, np.float64), replications, seed)
    if drawn is not None:
        leaf["ci95"], leaf["bootstrap"] = drawn.ci95, drawn.as_json()
    return leaf


def _proportion(errors: int, total: int) -> Leaf:
    value = errors / total if total else None
    return {"errors": errors, "total": total, "rate": value, "ci95": wilson(errors, total)}


def _seconds(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return 0.0
    return max(0.0, float(value))


def _digest(rows: list[dict[str, Any]]) -> str:
    """What was scored, whatever the paths: two scores compare only when this is equal."""
    said = sorted(f"{row['text']}\x1f{row.get('term', '')}" for row in rows)
    return hashlib.sha256("\x1e".join(said).encode("utf-8", "replace")).hexdigest()


def _warnings(rows: list[dict[str, Any]], empty_terms: list[str], mode: str, training: set[str]) -> list[str]:
    warnings = []
    if not rows:
        warnings.append("nothing to score: no rows.")
    if empty_terms:
        what = "counted as recognised, as NVIDIA's script does" if mode == "nvidia" else "left out of KER"
        warnings.append(f"empty term in {_rows(empty_terms)}: {what}.")
    silent = [row["audio_filepath"] for row in rows if not row["ref_chars"]]
    if silent:
        warnings.append(f"empty reference in {_rows(silent)}: every word heard there counts as one error.")
    trained = [r["audio_filepath"] for r in rows if r["audio_filepath"] in training or r.get("split") == "train"]
    if trained:
        warnings.append(f"{_rows(trained)} of these were trained on: not validation-only numbers.")
    return warnings


def _rows(paths: list[str]) -> str:
    named = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
    return f"{len(paths)} row{'s' if len(paths) > 1 else ''} ({named})"
