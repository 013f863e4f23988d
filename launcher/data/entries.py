"""What a transcripts file yields, the names its columns may have, and how its text is read and cleaned."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import BadInputError

AUDIO_COLUMNS = (
    "audio_filepath", "audio_file_path", "audio_path", "audio_filename", "audio_file_name", "audio_file",
    "audio", "file_path", "filepath", "file_name", "filename", "file", "path", "wav", "wav_path", "wav_file",
    "wav_filename", "wav_name", "clip", "clip_name", "clip_path", "recording", "recording_path",
    "recording_name", "sound", "media", "utterance_id", "utt_id", "utt", "clip_id", "recording_id", "id", "name",
)  # fmt: skip
TEXT_COLUMNS = (
    "text", "transcript", "transcription", "sentence", "transcript_text", "transcripts", "utterance",
    "reference", "ground_truth", "label", "words", "prompt", "normalized_text", "raw_text", "raw_transcription",
)  # fmt: skip
VOICE_COLUMNS = (
    "voice_id", "speaker_id", "speaker", "voice", "client_id", "spk", "spk_id", "speaker_name", "reader",
    "reader_id",
)  # fmt: skip
LANGUAGE_COLUMNS = (
    "lang", "language", "locale", "language_id",
)  # fmt: skip
PASSED_THROUGH = ("term", "entity_category", "ipa_source", "noise_level", "context_type")


@dataclass(frozen=True)
class Entry:
    """One transcript: which recording it names, what is said, and where this was read."""

    name: str
    text: str
    file: Path
    line: int
    voice_id: str | None = None
    language: str | None = None
    segment: tuple[float, float] | None = None  # (start, length) in seconds
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used: what it named (or its line), and why."""

    name: str
    why: str


@dataclass
class Table:
    """All that one transcripts file holds."""

    path: Path
    entries: list[Entry]
    faults: list[Fault]


class NotTranscriptsError(BadInputError):
    """The file is readable, but nothing in it pairs recordings with words."""


Known = Callable[[str], bool]  # whether a name is that of a recording at hand


def read_text(path: Path) -> str:
    """The file's text; UTF-8 or UTF-16 by its byte-order mark. Bad bytes are an error with their line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror}).", file=path) from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError as error:
            raise BadInputError("broken UTF-16.", fix="Save it as UTF-8.", file=path) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInputError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8.",
            fix="Save it as UTF-8 (in Excel: “CSV UTF-8”).",
            file=path,
            line=line,
        ) from error


def clean(text: str) -> str:
    """One line of NFC text: control characters and runs of white space become one space."""
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


def column_key(cell: str) -> str:
    """A column's name as it is compared: lower case, words joined by underscores."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cell.strip())
    return re.sub(r"\W+", "_", spaced.casefold()).strip("_")


def pick(row: dict[str, Any], names: Iterable[str]) -> str | None:
    """The key of `row` that the first matching name stands for."""
    keys = {column_key(key): key for key in reversed(list(row))}
    return next((keys[name] for name in names if name in keys), None)


def writable(value: Any) -> bool:
    """Whether a value read from JSON can be written again as strict JSON in UTF-8."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def counted(count: int, noun: str) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def label(value: Any) -> str | None:
    """A name or code as text; None for what cannot be one."""
    return None if value is None or value == "" or isinstance(value, dict | list) else str(value)
