"""Check the rows of a manifest one by one: encoding, JSON, and what each field may hold."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VALUES = {
    "entity_category": ("drug", "procedure", "anatomy", "condition", "lab", "role"),
    "ipa_source": ("override", "merriam-webster", "magpie_g2p"),
    "noise_level": ("clean", "snr_15db", "snr_5db"),
    "context_type": ("dictation", "handoff", "chart_note", "history"),
}
_BOM = b"\xef\xbb\xbf"
_OTHER_NAMES = {
    "audio_filepath": ("audio", "audio_file", "audio_filename", "path", "file", "filepath", "wav"),
    "text": ("transcript", "transcription", "sentence", "pred_text"),
    "duration": ("length", "seconds", "dur"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where (line from 1, field), what, and the fix."""

    line: int
    field: str
    problem: str
    fix: str

    def as_json(self) -> dict[str, object]:
        """As the fields of the command line's contract."""
        return {"line": self.line, "field": self.field, "problem": self.problem, "fix": self.fix}


@dataclass(slots=True)
class Row:
    """A row's usable fields; None stands for one that is missing or at fault."""

    line: int
    name: str = ""  # audio_filepath as written
    audio: str | None = None  # as an absolute path
    text: str | None = None
    duration: float | None = None
    offset: float | None = None
    category: str | None = None


class _Nan(float):
    """A NaN or Infinity that stood in the JSON as a bare word."""


class RowChecker:
    """Reads rows and collects what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []
        self.objects = 0  # lines that hold an object
        self._repeated: list[str] = []  # keys that stand twice in the object being read
        self._decoder = json.JSONDecoder(object_pairs_hook=self._pairs, parse_constant=_Nan)

    def error(self, line: int, field: str, problem: str, fix: str) -> None:
        """Note something that stops training or spoils what it learns."""
        self.errors.append(Finding(line, _plain(field), problem, fix))

    def warning(self, line: int, field: str, problem: str, fix: str) -> None:
        """Note something that is probably not meant."""
        self.warnings.append(Finding(line, _plain(field), problem, fix))

    def read(self, raw: bytes, progress: Callable[[int, int], None] | None = None) -> list[Row]:
        """All rows of a manifest's bytes; lines that are no object are errors and give no row."""
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            self.error(1, "encoding", "UTF-16; NeMo reads UTF-8.", "Save it as UTF-8 without a byte-order mark.")
            return []
        if raw.startswith(_BOM):
            self.error(1, "encoding", "begins with a byte-order mark, on which NeMo's reader fails.",
                       "Save it as UTF-8 without a byte-order mark.")  # fmt: skip
            raw = raw[len(_BOM) :]
        rows = []
        returns = blank = first_return = first_blank = 0
        lines = raw.split(b"\n")
        for number, line in enumerate(lines, 1):
            if progress and number % 4096 == 0:
                progress(number, len(lines))
            if line.endswith(b"\r"):
                returns, first_return = returns + 1, first_return or number
            if not line.strip():
                if number < len(lines):
                    blank, first_blank = blank + 1, first_blank or number
                continue
            row = self._row(number, line)
            if row is not None:
                rows.append(row)
        if returns:
            self.warning(first_return, "encoding", f"Windows line ends (CRLF) on {returns:,} lines.",
                         "NeMo reads them; other tools may not: dos2unix.")  # fmt: skip
        if blank:
            self.warning(first_blank, "json", f"empty lines ({blank:,} in all).", "Remove them.")
        if not self.objects and not self.errors:
            self.error(
                1, "json", "no rows in it.", 'A row: {"audio_filepath": "a.wav", "text": "…", "duration": 1.5}'
            )
        return rows

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            self._repeated += sorted({key for key in keys if keys.count(key) > 1})
        return found

    def _row(self, number: int, line: bytes) -> Row | None:
        self._repeated = []
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            self.error(number, "encoding", f"byte 0x{line[error.start]:02x} at {error.start + 1} is not UTF-8.",
                       "Save it as UTF-8.")  # fmt: skip
            return None
        try:
            value = self._decoder.decode(text.strip())
        except json.JSONDecodeError as error:
            self.error(number, "json", f"broken at column {error.colno}: {error.msg}.", "One JSON object a line.")
            return None
        except (ValueError, RecursionError):
            self.error(number, "json", "a number too long or brackets too deep.", "One flat JSON object a line.")
            return None
        if not isinstance(value, dict):
            self.error(number, "json", f"{_kind(value)} where a row is an object.", _A_ROW)
            return None
        self.objects += 1
        for key in self._repeated:
            self.error(number, key, "stands twice in this row; readers keep the last.", "Keep one.")
        row = Row(number)
        self._audio(row, value)
        self._text(row, value)
        self._duration(row, value)
        self._offset(row, value)
        self._labels(row, value)
        return row

    def _missing(self, row: Row, field: str, value: dict[str, Any]) -> bool:
        """Whether the field is absent or null (then an error says so)."""
        if value.get(field) is not None:
            return False
        if field in value:
            self.error(row.line, field, "is null.", "Write its value." if field != "duration" else _HOW_LONG)
        else:
            other = next((name for name in _OTHER_NAMES[field] if name in value), None)
            fix = f"Rename {other}." if other else _HOW_LONG if field == "duration" else "Every row needs it."
            self.error(row.line, field, "missing.", fix)
        return True

    def _audio(self, row: Row, value: dict[str, Any]) -> None:
        if self._missing(row, "audio_filepath", value):
            return
        name = value["audio_filepath"]
        problem = fix = ""
        if not isinstance(name, str):
            problem, fix = f"{_kind(name)} where a path is expected.", "Write the path as text."
        elif not name.strip():
            problem, fix = "is empty.", "Write the path of the recording."
        elif "\0" in name or not _is_unicode(name):
            problem, fix = "holds a character no path can hold.", "Correct the path."
        elif re.match(r"[A-Za-z][A-Za-z0-9+.\-]+://", name):
            problem, fix = f"a URL ({name.split('://', 1)[0]}); only files are read.", "Download it first."
        elif name.startswith("~"):
            problem, fix = "begins with ~, which only a shell expands.", "Write the full path."
        elif not os.path.isabs(name) and _climbs(name):  # noqa: PTH117
            problem, fix = f"leads out of the manifest's folder: {name!r}.", "Write the full path."
        if problem:
            self.error(row.line, "audio_filepath", problem, fix)
            return
        row.name = name
        row.audio = os.path.normpath(os.path.join(self.folder, name))  # noqa: PTH118  (100,000 times)

    def _text(self, row: Row, value: dict[str, Any]) -> None:
        if self._missing(row, "text", value):
            return
        text = value["text"]
        if not isinstance(text, str):
            self.error(row.line, "text", f"{_kind(text)} where text is expected.", 'Put it in quotes: "12".')
        elif not text.strip():
            self.error(row.line, "text", "is empty.", "Write what is said, or remove the row.")
        elif not text.isascii() and not _is_unicode(text):
            self.error(row.line, "text", "holds half a Unicode character.", "Write it again as UTF-8.")
        else:
            row.text = text
            if not text.isprintable() and any(c < " " or "\x7f" <= c < "\xa0" for c in text):
                self.warning(row.line, "text", "holds control characters, such as a line break or a tab.",
                             "Write it on one line.")  # fmt: skip

    def _duration(self, row: Row, value: dict[str, Any]) -> None:
        if self._missing(row, "duration", value):
            return
        given = value["duration"]
        row.duration = self._seconds(row, "duration", given)
        if row.duration is not None and row.duration <= 0:
            self.error(row.line, "duration", f"is {given!r}, not a length.", _HOW_LONG)
            row.duration = None

    def _offset(self, row: Row, value: dict[str, Any]) -> None:
        if value.get("offset") is None:
            return
        row.offset = self._seconds(row, "offset", value["offset"])
        if row.offset is not None and row.offset < 0:
            self.error(row.line, "offset", "is negative.", "Write seconds from the beginning of the recording.")
            row.offset = None

    def _seconds(self, row: Row, field: str, given: object) -> float | None:
        """A finite number of seconds, or None and an error."""
        if isinstance(given, bool) or not isinstance(given, int | float):
            self.error(row.line, field, f"{_kind(given)} where a number of seconds is expected.", _HOW_LONG)
            return None
        try:
            seconds = float(given)
        except OverflowError:
            seconds = math.inf
        if not math.isfinite(seconds):
            name = "NaN" if math.isnan(seconds) else "infinite"
            self.error(row.line, field, f"is {name}.", _HOW_LONG)
            return None
        return seconds

    def _labels(self, row: Row, value: dict[str, Any]) -> None:
        for field, known in VALUES.items():
            given = value.get(field)
            if given is None:
                continue
            if not isinstance(given, str):
                self.error(row.line, field, f"{_kind(given)} where text is expected.", f"One of {', '.join(known)}.")
                continue
            if given not in known:
                self.warning(row.line, field, f"{given[:60]!r} is not one of the known values.",
                             f"Known: {', '.join(known)}.")  # fmt: skip
            if field == "entity_category":
                row.category = given.encode("utf-8", "replace").decode()
        term = value.get("term")
        if isinstance(term, str) and row.text is not None and term.strip() and not _occurs(term, row.text):
            self.warning(
                row.line, "term", f"{term[:60]!r} does not occur in the text.", "It can never be scored as heard."
            )
        for field, given in value.items():
            if isinstance(given, _Nan) and field not in {"duration", "offset"}:
                name = field or "(empty name)"
                self.error(row.line, name, "NaN and Infinity are not JSON.", "Write a number, or remove it.")


_A_ROW = 'A row: {"audio_filepath": "a.wav", "text": "…", "duration": 1.5}'
_HOW_LONG = "Write the recording's length in seconds."


def _plain(field: str) -> str:
    """A key as valid Unicode: JSON can hold half a surrogate pair, and no output can print one."""
    return field if field.isascii() else field.encode("utf-8", "backslashreplace").decode()


def _climbs(name: str) -> bool:
    return ".." in name and (os.path.normpath(name) + os.sep).startswith(".." + os.sep)


def _occurs(term: str, text: str) -> bool:
    """Whether the letters of `term` stand in `text`, whatever its case, spaces and punctuation."""
    return term in text or _letters(term) in _letters(text)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _kind(value: object) -> str:
    """What a JSON value is, in a person's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
