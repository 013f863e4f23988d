"""Transcripts of another system: JSON lines, or the JSON that Whisper's own command writes, by a manifest's names.

openai-whisper (20250625, whisper/utils.py, WriteJSON) writes AUDIO-NAME.json for each audio file, an object of
`text`, `segments` and `language`; the name of the audio is in the file's name alone, without its folder or ending.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipes.manifest import ManifestError, Row, read_rows, text_of

Heard = dict[str, tuple[int, Row]]  # audio_filepath -> (line, {"audio_filepath", "pred_text"})
_FIX = "Write one JSON object a line: audio_filepath and pred_text (or text)."


def read_foreign(source: str | Path, names: Iterable[str]) -> Heard:
    """What another system heard, for a manifest whose rows are called `names`.

    `source`: JSON lines of `audio_filepath` with `pred_text`, or with `text` where a row has no `pred_text`; one
    .json of openai-whisper; or a folder of those. Raises ManifestError for what cannot be read, for text that is
    missing, for one audio twice, and for a Whisper file that two rows of the manifest could be meant by.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(found for found in path.iterdir() if found.suffix == ".json")
        if not files:
            fix = "whisper writes them with --output_format json."
            raise ManifestError(path, None, "a folder without one .json file.", fix=fix)
        return _of_whisper({file: _whole(file) for file in files}, names)
    whole = _whole(path) if path.is_file() else None
    if isinstance(whole, dict) and "audio_filepath" not in whole:
        return _of_whisper({path: whole}, names)
    if isinstance(whole, list):
        raise ManifestError(path, None, "a JSON list, not JSON lines.", fix=_FIX)
    heard: Heard = {}
    for line, row in read_rows(path):
        name = text_of(row, "audio_filepath", path, line)
        if name in heard:
            problem = f"{name} is already on line {heard[name][0]}."
            raise ManifestError(path, line, problem, key="audio_filepath", value=name)
        key = "pred_text" if "pred_text" in row or "text" not in row else "text"
        heard[name] = line, {"audio_filepath": name, "pred_text": text_of(row, key, path, line)}
    return heard


def _of_whisper(files: dict[Path, Any], names: Iterable[str]) -> Heard:
    """By the audio's name without folder and ending, as Whisper names its file; or with its ending (a.wav.json)."""
    called: dict[str, list[str]] = {}
    for name in names:
        for short in {Path(name).stem, Path(name).name}:
            called.setdefault(short, []).append(name)
    heard: Heard = {}
    for file, whole in files.items():
        meant = called.get(file.stem, [])
        if len(meant) > 1:
            problem = f"two rows of the manifest could be meant: {meant[0]} and {meant[1]}."
            raise ManifestError(file, None, problem, key=file.stem, fix=_FIX)
        name = meant[0] if meant else file.stem  # a name that no row has: who matches the two says so
        if name in heard:
            raise ManifestError(file, None, f"{name} has a file already.", key=file.stem, value=name)
        heard[name] = 1, {"audio_filepath": name, "pred_text": _text(file, whole).strip()}
    return heard


def _text(file: Path, whole: Any) -> str:
    """The text of a Whisper result: `text`, or its segments' texts where a tool leaves `text` out (WhisperX)."""
    if not isinstance(whole, dict):
        raise ManifestError(file, None, "not what whisper writes: an object of `text` and `segments`.")
    if "text" not in whole and isinstance(whole.get("segments"), list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in whole["segments"]]
        if all(isinstance(part, str) for part in parts):
            return " ".join(str(part).strip() for part in parts)
        raise ManifestError(file, None, "a segment has no text.", key="segments")
    return text_of(whole, "text", file, None)


def _whole(file: Path) -> Any:
    """The file as one JSON value; None where it is none, as JSON lines of two rows are none."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ManifestError(file, None, f"cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        return None
