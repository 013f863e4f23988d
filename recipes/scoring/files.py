"""Reading what is to be scored, and writing and reading score files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipes.contract import write_atomic, write_json
from recipes.manifest import ManifestError, Row, read_rows, text_of, write_manifest
from recipes.scoring.foreign import read_foreign
from recipes.scoring.score import Score

SCORE, PER_SAMPLE, RESULTS, HYPOTHESES = "score.json", "per_sample.json", "results.csv", "offline_hyps.jsonl"
_COLUMNS = (
    "audio_filepath", "term", "entity_category", "ipa_source", "noise_level", "voice_id", "context_type",
    "split", "duration",
    "wer", "cer", "ker", "ker_nvidia", "ser", "substitutions", "deletions", "insertions", "hits",
    "ref_words", "char_errors", "ref_chars", "text", "pred_text",
)  # fmt: skip


def read_pair(
    references: str | Path, hypotheses: str | Path, *, foreign: bool = False
) -> tuple[list[Row], dict[str, str]]:
    """A manifest and a hypothesis file, matched by `audio_filepath`, ready for `score_rows`.

    `foreign`: the hypotheses are another system's, in any form that `read_foreign` takes.
    Raises ManifestError naming file, line and audio for a duplicate on either side, a row without its
    counterpart, and text that is missing or not a string.
    """
    said = _by_audio(references, "text")
    heard = read_foreign(hypotheses, said) if foreign else _by_audio(hypotheses, "pred_text")
    if not said:
        raise ManifestError(references, None, "no rows.")
    mine = as_in(said, heard, Path(references).parent)
    heard = {mine[path]: found for path, found in heard.items()}
    for here, there, what in ((said, hypotheses, "hypothesis"), (heard, references, "reference")):
        other = heard if here is said else said
        lone = [path for path in here if path not in other]
        if lone:
            file = references if here is said else hypotheses
            more = f" ({len(lone)} such rows)" if len(lone) > 1 else ""
            raise ManifestError(
                file, here[lone[0]][0], f"{lone[0]} has no {what} in {there}{more}.",
                key="audio_filepath", value=lone[0], fix="Rows match by audio_filepath.",
            )  # fmt: skip
    for line, row in said.values():
        if row.get("term") is not None and not isinstance(row["term"], str):
            raise ManifestError(references, line, "expected text.", key="term", value=row["term"])
    return [row for _, row in said.values()], {path: row["pred_text"] for path, (_, row) in heard.items()}


def as_in(manifest: Iterable[str], others: Iterable[str], folder: Path) -> dict[str, str]:
    """How a manifest in `folder` writes the audio that others name: in `/data`, `/data/a.wav` is its `a.wav`.

    A name that the manifest has, or that is none of its files, stays as it is.
    """
    names = list(manifest)
    known, wanted = set(names), list(others)
    lone = [name for name in wanted if name not in known]
    if not lone:
        return {name: name for name in wanted}
    taken = known & set(wanted)
    by_file = {_file(name, folder): name for name in names if name not in taken}
    return {name: name if name in known else by_file.get(_file(name, folder), name) for name in wanted}


def _file(name: str, folder: Path) -> str:
    return os.path.abspath(os.path.join(folder, name))  # noqa: PTH100, PTH118  (links stay as they are written)


def _by_audio(file: str | Path, key: str) -> dict[str, tuple[int, Row]]:
    rows: dict[str, tuple[int, Row]] = {}
    for line, row in read_rows(file):
        path = text_of(row, "audio_filepath", file, line)
        if path in rows:
            raise ManifestError(
                file, line, f"{path} is already on line {rows[path][0]}.", key="audio_filepath", value=path
            )
        text_of(row, key, file, line)
        rows[path] = line, row
    return rows


def write_score(out: str | Path, score: Score) -> list[str]:
    """Write score.json, per_sample.json, results.csv and offline_hyps.jsonl under `out`; their names."""
    folder = Path(out)
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(score.rows)
    write_atomic(folder / RESULTS, table.getvalue())
    write_manifest(
        folder / HYPOTHESES,
        ({"audio_filepath": row["audio_filepath"], "pred_text": row["pred_text"]} for row in score.rows),
    )
    write_json(folder / PER_SAMPLE, score.rows)
    write_json(folder / SCORE, score.summary)  # last: a score.json stands for a whole set
    return [SCORE, PER_SAMPLE, RESULTS, HYPOTHESES]


def read_score(path: str | Path) -> tuple[dict[str, Any], list[Row] | None]:
    """A score.json (or the folder that holds one) and the rows of the per_sample.json beside it, if any."""
    file = Path(path) / SCORE if Path(path).is_dir() else Path(path)
    score = _read_json(file)
    if not isinstance(score, dict) or not isinstance(score.get("micro"), dict):
        raise ManifestError(
            file, None, "not a score file: it has no `micro`.", fix="Write one with launcher score --out."
        )
    categories = score.get("ker_by") or {}
    categories = categories.get("entity_category") if isinstance(categories, dict) else categories
    for name, group in (("micro", score["micro"]), ("macro", score.get("macro")), ("entity_category", categories)):
        for key, leaf in _object(file, name, group or {}).items():
            _check_leaf(file, f"{name}.{key}", leaf)
    beside = file.parent / PER_SAMPLE
    return score, read_per_sample(beside) if beside.is_file() else None


def read_per_sample(path: str | Path) -> list[Row]:
    """The rows of a per_sample.json (a list of objects; JSON lines are read too), or of its folder."""
    file = Path(path) / PER_SAMPLE if Path(path).is_dir() else Path(path)
    try:
        rows = _read_json(file)
    except ManifestError:
        rows = [row for _, row in read_rows(file)]
    if isinstance(rows, dict):
        rows = rows.get("rows", [rows])
    if not isinstance(rows, list):
        raise ManifestError(file, None, "expected a list of rows.")
    if not rows:
        raise ManifestError(file, None, "no rows.")
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        path = text_of(_object(file, f"row {number}", row), "audio_filepath", file, None)
        if path in seen:
            raise ManifestError(file, None, f"{path} is there twice.", key="audio_filepath", value=path)
        seen.add(path)
    return rows


def _object(file: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(file, None, "expected an object.", key=name, value=value)
    return value


def _check_leaf(file: Path, name: str, leaf: Any) -> None:
    """A leaf is null or {errors, total, rate, ci95}, all of them numbers or null."""
    numbers = [_object(file, name, leaf).get(key) for key in ("errors", "total", "rate")] if leaf is not None else []
    interval = (leaf or {}).get("ci95")
    if interval is not None and not (isinstance(interval, list) and len(interval) == 2 and None not in interval):
        raise ManifestError(file, None, "expected two numbers.", key=f"{name}.ci95", value=interval)
    for value in [*numbers, *(interval or [])]:
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise ManifestError(file, None, "expected numbers, none below 0.", key=name, value=value)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ManifestError(file, None, f"cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise ManifestError(file, None, f"not JSON: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
