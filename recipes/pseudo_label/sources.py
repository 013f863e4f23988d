"""What is to be labelled: the rows of a manifest without texts, or the audio files of a folder. Needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.contract import RecipeFailure
from recipes.evaluate.audio import Clip, look
from recipes.manifest import ManifestError, Row, read_rows, text_of

#: Of what a folder holds, what is audio. Some of it libsndfile cannot read: then the row says so.
SUFFIXES = frozenset({
    ".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".au", ".wma",
    ".webm", ".mp4", ".mkv", ".mka", ".mov", ".amr", ".3gp", ".sph", ".w64", ".rf64", ".caf",
})  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One row to be labelled: `row` with an absolute audio_filepath; `clip`, or why it cannot be read.

    `name`: the file as seen from the manifest or the folder that names it, so the same on another machine.
    """

    row: Row
    name: str
    clip: Clip | None
    fault: str = ""

    @property
    def key(self) -> str:
        """The same for the same stretch of the same bytes: what was heard there need not be heard again."""
        if self.clip is None:
            return self.name
        held = self.clip.path.stat()
        part = f"{self.clip.offset_s:.3f}+{self.clip.duration_s:.3f}"
        return f"{self.name}|{part}|{held.st_size}|{held.st_mtime_ns}"


def sources_of(place: str | Path) -> list[Source]:
    """Every row of a manifest in its order, or every audio file under a folder by name; links are not followed.

    Raises ManifestError for a place that is not there, a folder without audio, and a wrong row of a manifest.
    """
    path = Path(place)
    found = _of_folder(path) if path.is_dir() else _of_manifest(path)
    if not found:
        what = "a folder without audio files" if path.is_dir() else "no rows"
        raise ManifestError(path, None, f"{what}: there is nothing to label.", fix="Name another folder or manifest.")
    return found


def _of_folder(folder: Path) -> list[Source]:
    files = [
        Path(place) / name
        for place, _, names in os.walk(folder.absolute())
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    return [_looked_at({"audio_filepath": str(file)}, file, folder, 0.0, None) for file in sorted(files)]


def _of_manifest(manifest: Path) -> list[Source]:
    found: list[Source] = []
    lines: dict[tuple[str, float], int] = {}
    for line, row in read_rows(manifest):
        name = text_of(row, "audio_filepath", manifest, line)
        file = (manifest.parent / Path(name).expanduser()).absolute()
        offset_s = _seconds(row, "offset", manifest, line) or 0.0
        place = (str(file), offset_s)
        if place in lines:
            raise ManifestError(
                manifest, line, f"{name} is already on line {lines[place]}.", key="audio_filepath", value=name
            )
        lines[place] = line
        part_s = _seconds(row, "duration", manifest, line) if offset_s else None
        kept = {key: value for key, value in row.items() if key not in ("pred_text", "duration")}
        if isinstance(kept.get("text"), str) and kept["text"]:
            kept["text_before"] = kept["text"]
        found.append(_looked_at({**kept, "audio_filepath": str(file)}, file, manifest.parent, offset_s, part_s))
    return found


def _looked_at(row: Row, file: Path, seen_from: Path, offset_s: float, part_s: float | None) -> Source:
    name = os.path.relpath(file, seen_from.absolute())
    try:
        return Source(row, name, look(file, offset_s, part_s))
    except RecipeFailure as failure:
        return Source(row, name, None, failure.message)


def _seconds(row: Row, key: str, manifest: Path, line: int) -> float | None:
    value: Any = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ManifestError(manifest, line, "expected seconds.", key=key, value=value)
    return float(value)
