"""Read transcripts from JSON: lines (NeMo manifests among them), a list of objects, or name -> words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launcher.data.entries import (
    AUDIO_COLUMNS,
    LANGUAGE_COLUMNS,
    TEXT_COLUMNS,
    VOICE_COLUMNS,
    Entry,
    Fault,
    NotTranscriptsError,
    Table,
    clean,
    label,
    pick,
    writable,
)
from launcher.errors import BadInputError


def read_json(path: Path, text: str) -> Table:
    """The transcripts in JSON `text`; raises NotTranscriptsError when no row holds any, BadInputError when broken."""
    entries: list[Entry] = []
    faults: list[Fault] = []
    for line, row in _json_rows(path, text):
        if not isinstance(row, dict):
            faults.append(Fault(f"line {line}", "not a JSON object"))
            continue
        audio_key = pick(row, AUDIO_COLUMNS)
        text_key = pick(row, TEXT_COLUMNS)
        name = row.get(audio_key) if audio_key else None
        if not isinstance(name, str) or not name.strip():
            faults.append(Fault(f"line {line}", "names no recording"))
            continue
        words = row.get(text_key) if text_key else None
        if not isinstance(words, str):
            faults.append(Fault(name, f"line {line}: its transcript is {'missing' if words is None else 'not text'}"))
            continue
        voice_key, language_key = pick(row, VOICE_COLUMNS), pick(row, LANGUAGE_COLUMNS)
        dropped = {audio_key, text_key, voice_key, language_key, "duration", "offset", "pred_text"}
        try:
            segment = _segment(row)
        except ValueError:
            faults.append(Fault(name, f"line {line}: its offset and duration are not two numbers of seconds"))
            continue
        extra = {k: v for k, v in row.items() if k not in dropped and v is not None}
        if not writable([name, words, extra]):
            faults.append(Fault(f"line {line}", "holds NaN, Infinity or half a Unicode character"))
            continue
        entries.append(
            Entry(
                name=name, text=clean(words), file=path, line=line,
                voice_id=label(row.get(voice_key)) if voice_key else None,
                language=label(row.get(language_key)) if language_key else None,
                segment=segment, extra=extra,
            )
        )  # fmt: skip
    if not entries:
        raise NotTranscriptsError(
            "no row names a recording and its words.",
            fix='A row looks like {"audio_filepath": "a.wav", "text": "what is said"}.',
            file=path,
        )
    return Table(path, entries, faults)


def _json_rows(path: Path, text: str) -> Iterable[tuple[int, Any]]:
    """(line, value) of JSON lines, of one JSON list of objects, or of one object name -> words."""
    stripped = text.lstrip()
    if path.suffix.lower() == ".json" or stripped.startswith("["):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            whole = None  # JSON lines under another suffix, or broken: the line reader will say where
        if isinstance(whole, list):
            return list(enumerate(whole, 1))
        if isinstance(whole, dict) and whole and all(isinstance(v, str) for v in whole.values()):
            if pick(whole, TEXT_COLUMNS) and pick(whole, AUDIO_COLUMNS):
                return [(1, whole)]
            return [(i, {"audio_filepath": k, "text": v}) for i, (k, v) in enumerate(whole.items(), 1)]
    rows: list[tuple[int, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "unreadable"
            raise BadInputError(
                f"not JSON ({reason}).", fix="Each line is one JSON object.", file=path, line=number
            ) from error
    return rows


def _segment(row: dict[str, Any]) -> tuple[float, float] | None:
    """The part of a recording a NeMo row with `offset` stands for; raises ValueError on nonsense."""
    if row.get("offset") is None:
        return None
    start, length = row["offset"], row.get("duration")
    for value in (start, length):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise ValueError(value)
    if not length:
        raise ValueError(length)
    return float(start), float(length)
