"""Read transcripts from a table (CSV, TSV, JSON lines, plain lines), guessing its shape from its content."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from launcher.data.entries import (
    AUDIO_COLUMNS,
    LANGUAGE_COLUMNS,
    PASSED_THROUGH,
    TEXT_COLUMNS,
    VOICE_COLUMNS,
    Entry,
    Fault,
    Known,
    NotTranscriptsError,
    Table,
    clean,
    column_key,
    read_text,
)
from launcher.data.jsonrows import read_json
from launcher.errors import BadInputError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".psv", ".jsonl", ".ndjson", ".json"})
_FIELD_LIMIT = 10_000_000  # characters; Python's own limit of 131,072 is below one long transcript


def read_table(path: Path, known: Known, *, plain_tsv: bool = False) -> Table:
    """Read one transcripts file. `known` tells the names of recordings; it decides what has no header.

    `plain_tsv` reads tabs without any quoting (Common Voice). Raises NotTranscriptsError when nothing in the
    file looks like transcripts, BadInputError when it is broken.
    """
    text = read_text(path)
    if path.suffix.lower() in {".jsonl", ".ndjson", ".json"}:
        return read_json(path, text)
    rows = list(_split(path, text, plain_tsv))
    if not rows:
        raise NotTranscriptsError("no rows in it.", file=path)
    return _columns(path, rows, known)


# --- Separated values ------------------------------------------------------------------------------------------


def _split(path: Path, text: str, plain_tsv: bool) -> Iterable[tuple[int, list[str]]]:
    """(line, cells) of a table whose separator is guessed from its first lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    # Excel's own way to name the separator is a first line of its own; an empty line keeps the numbers right.
    text = re.sub(r"\Asep=[^\n]\n", "\n", text)
    lines = text.split("\n")
    delimiter = "\t" if plain_tsv else _delimiter(path, [line for line in lines[:200] if line.strip()])
    plain = [(n, line.split(delimiter)) for n, line in enumerate(lines, 1) if line.strip()]
    if plain_tsv or delimiter == "|" or '"' not in text:
        return plain
    csv.field_size_limit(_FIELD_LIMIT)
    try:
        return _quoted(text, delimiter)
    except csv.Error as error:
        # Stray quotes in an unquoted table: sound, when every line has the same number of cells anyway.
        if len({len(cells) for _, cells in plain}) == 1:
            return plain
        line = text[: text.find('"')].count("\n") + 1
        raise BadInputError(
            f"its quotes do not pair up ({error}).",
            fix='A cell with quotes in it is written "like ""this""".',
            file=path,
            line=line,
        ) from error


def _quoted(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            rows.append((line, cells))
        line = reader.line_num + 1
    return rows


def _delimiter(path: Path, sample: Sequence[str]) -> str:
    """The separator that splits most lines, evenly; the suffix decides a tie."""
    preferred = {".tsv": "\t", ".psv": "|"}.get(path.suffix.lower(), ",")

    def evenness(mark: str) -> tuple[float, bool]:
        counts = [re.sub(r'"[^"]*"', "", line).count(mark) for line in sample]
        present = sum(1 for count in counts if count)
        common = max((counts.count(c) for c in set(counts) if c), default=0)
        return (present + common) / (2 * max(1, len(sample))), mark == preferred

    return max((preferred, *(m for m in "\t;|," if m != preferred)), key=evenness)


def _columns(path: Path, rows: list[tuple[int, list[str]]], known: Known) -> Table:
    """Decide which column is which, from the header or from the cells, and read the rows."""
    header = [column_key(cell) for cell in rows[0][1]]
    audio_at = [header.index(name) for name in AUDIO_COLUMNS if name in header]
    text_at = next((header.index(name) for name in TEXT_COLUMNS if name in header), None)
    body = rows[1:]
    has_header = bool(audio_at) and text_at is not None
    if not has_header and any(known(cell) for cell in rows[0][1]):
        audio, text_at = _guess_columns(rows, known)
        header, body = [""] * len(rows[0][1]), rows
    elif not has_header:
        missing = "the words" if audio_at else "the recordings" if text_at is not None else "recordings and words"
        raise NotTranscriptsError(
            f"no column for {missing} (its columns: {', '.join(map(repr, rows[0][1][:12]))}).",
            fix="Name the columns audio_filepath and text.",
            file=path,
            line=rows[0][0],
        )
    else:
        audio = max(audio_at, key=lambda at: (_hits(body, at, known), -audio_at.index(at)))
    assert text_at is not None
    return _read_rows(path, header, body, audio, text_at)


def _hits(rows: list[tuple[int, list[str]]], at: int, known: Known) -> int:
    return sum(1 for _, cells in rows[:200] if at < len(cells) and known(cells[at]))


def _guess_columns(rows: list[tuple[int, list[str]]], known: Known) -> tuple[int, int]:
    """Without a header: recordings where names match best, words where the cells are longest."""
    width = max(len(cells) for _, cells in rows[:200])
    audio = max(range(width), key=lambda at: (_hits(rows, at, known), -at))

    def letters(at: int) -> int:
        return sum(len(cells[at].strip()) for _, cells in rows[:200] if at < len(cells))

    return audio, max((at for at in range(width) if at != audio), key=letters, default=audio + 1)


def _read_rows(path: Path, header: list[str], body: list[tuple[int, list[str]]], audio: int, text: int) -> Table:
    table = Table(path, [], [])
    voice = next((header.index(name) for name in VOICE_COLUMNS if name in header), None)
    language = next((header.index(name) for name in LANGUAGE_COLUMNS if name in header), None)
    passed = [(name, header.index(name)) for name in PASSED_THROUGH if name in header]
    width = len(header)

    def cell(cells: list[str], at: int | None) -> str | None:
        return cells[at].strip() or None if at is not None and at < len(cells) else None

    for line, split in body:
        cells = split
        if len(cells) > width and text == width - 1:
            # An unquoted separator inside the words: the words are the last column, so nothing is lost.
            cells = [*split[:text], ",".join(split[text:])]
        name = cells[audio].strip() if audio < len(cells) else ""
        if not name:
            table.faults.append(Fault(f"line {line}", "names no recording"))
        elif len(cells) > width:
            table.faults.append(Fault(name, f"line {line} has {len(cells)} cells, the table {width}"))
        elif text >= len(cells):
            table.faults.append(Fault(name, f"line {line}: its transcript is missing"))
        else:
            extra = {key: value for key, at in passed if (value := cell(cells, at)) is not None}
            table.entries.append(
                Entry(name, clean(cells[text]), path, line, cell(cells, voice), cell(cells, language), None, extra)
            )
    return table


# --- Plain lines -----------------------------------------------------------------------------------------------


def read_lines(path: Path, known: Known) -> Table:
    """Read `name words …` lines (Kaldi's `text`, LibriSpeech's .trans.txt, `name: words`, `name<tab>words`)."""
    table = Table(path, [], [])
    strange = 0
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith((";", "#")):
            continue
        for pattern in (r"\t+", r"\s*[|;]\s*", r":\s+", r",\s*", r"\s+"):
            name, *rest = re.split(pattern, line, maxsplit=1)
            if known(name):
                table.entries.append(Entry(name, clean(rest[0]) if rest else "", path, number))
                break
        else:
            name, _, words = line.partition(" ")
            table.entries.append(Entry(name, clean(words), path, number))
            strange += 1
    if strange * 2 > len(table.entries) or not table.entries:
        raise NotTranscriptsError("its lines do not begin with the names of recordings.", file=path)
    return table
