"""Reads the manifests of a run, leaves out what cannot be learned, and publishes them beside finetune.yaml."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.contract import RecipeExit, RecipeFailure
from recipes.finetune.spec import FinetuneSpec
from recipes.manifest import ManifestError, read_rows, write_manifest

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One recording: the manifest's own name of it, where it is, its text, its length in seconds."""

    named: str
    audio: str
    text: str
    duration_s: float
    bytes: int
    lang: str | None = None  # multilingual models with one tokenizer a language ask for it


def load(manifest: str, field: str) -> list[Row]:
    """The rows of a manifest, each audio file opened for its header.

    A relative path is taken from the manifest's folder, as NeMo does. Raises RecipeFailure(BAD_INPUT) naming
    the spec's field, the file, the line and the row's field.
    """
    path = Path(manifest)
    try:
        found = read_rows(path)
    except ManifestError as error:
        raise _bad(field, str(error)) from error
    if not found:
        raise _bad(field, f"{path}: no rows")
    rows = [_row(path, line, row, field) for line, row in found]
    seen: set[str] = set()
    for (line, _), row in zip(found, rows, strict=True):
        if row.audio in seen:
            raise _bad(field, f"{path}:{line}  audio_filepath: {row.named} stands in an earlier row too")
        seen.add(row.audio)
    return rows


def _row(path: Path, line: int, row: dict[str, Any], field: str) -> Row:
    import soundfile

    named, text, duration = row.get("audio_filepath"), row.get("text"), row.get("duration")
    if not isinstance(named, str) or not named:
        raise _bad(field, f"{path}:{line}  audio_filepath: missing, or not text")
    if not isinstance(text, str):
        raise _bad(field, f"{path}:{line}  text: missing, or not text")
    if row.get("offset"):
        raise _bad(field, f"{path}:{line}  offset: rows that are parts of a file are not supported; cut the audio")
    audio = Path(named) if Path(named).is_absolute() else path.parent / named
    try:
        header = soundfile.info(str(audio))
    except (soundfile.SoundFileError, OSError) as error:
        problem = "cannot be opened as audio" if audio.is_file() else "no such file"
        raise _bad(field, f"{path}:{line}  audio_filepath: {named}: {problem}") from error
    length = header.frames / header.samplerate
    if duration is None:
        duration = length
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not math.isfinite(duration):
        raise _bad(field, f"{path}:{line}  duration: {duration!r} is not a number of seconds")
    if header.channels != 1:
        problem = f"{named}: {header.channels} channels; models hear one (launcher import makes it so)"
        raise _bad(field, f"{path}:{line}  audio_filepath: {problem}")
    if duration <= 0 or length <= 0:
        raise _bad(field, f"{path}:{line}  duration: {duration:g} s, the file holds {length:g} s")
    lang = row.get("lang") if isinstance(row.get("lang"), str) else None
    return Row(named, str(audio.absolute()), text.strip(), float(duration), audio.stat().st_size, lang)


def _bad(field: str, problem: str) -> RecipeFailure:
    return RecipeFailure(RecipeExit.BAD_INPUT, f"{field}: {problem}")


def learnable(rows: Sequence[Row], what: str, shortest_s: float, longest_s: float, warn: Warn) -> list[Row]:
    """The rows that training can use: with text, within the durations. Says how many it left out, and why."""
    spoken = [row for row in rows if row.text]
    kept = [row for row in spoken if shortest_s <= row.duration_s <= longest_s]
    if len(spoken) < len(rows):
        warn(f"{what}: {len(rows) - len(spoken)} of {len(rows)} rows left out: empty text")
    if len(kept) < len(spoken):
        hours = sum(r.duration_s for r in spoken) / 3600 - sum(r.duration_s for r in kept) / 3600
        warn(
            f"{what}: {len(spoken) - len(kept)} of {len(rows)} rows ({hours:.2f} h) left out: shorter than "
            f"{shortest_s:g} s or longer than {longest_s:g} s"
        )
    return kept


def warn_of_unknown(rows: Sequence[Row], model: Any, warn: Warn) -> None:
    """Say how many texts the model's tokenizer cannot spell: it would learn to write unknown tokens."""
    if not hasattr(model.tokenizer, "tokenizer") or not hasattr(model.tokenizer.tokenizer, "unk_id"):
        return  # not SentencePiece, or one tokenizer a language: no one answer
    spell, unknown = model.tokenizer.text_to_ids, model.tokenizer.tokenizer.unk_id()
    bad = [row for row in rows if unknown in spell(row.text)]
    if bad:
        characters = sorted({c for row in bad for c in row.text if unknown in spell(c)} - {" "})[:20]
        warn(
            f"{len(bad)} of {len(rows)} training texts hold what the model cannot spell "
            f"({' '.join(characters)}); it learns to write unknown tokens there. Normalise the texts."
        )


@dataclass
class Sets:
    """The data sets of a run; training draws from `pool`: the target rows first, then the general ones."""

    train: list[Row]
    validation: list[Row]
    general: list[Row]
    general_validation: list[Row]

    @property
    def pool(self) -> list[Row]:
        """What the stream's row numbers mean."""
        return self.train + self.general


def load_sets(spec: FinetuneSpec, warn: Warn) -> Sets:
    """Every manifest of a spec. Raises RecipeFailure(BAD_INPUT), also when nothing is left to learn from."""
    train = load(spec.train_manifest, "train_manifest")
    validation = load(spec.validation_manifest, "validation_manifest")
    general, general_validation = [], []
    if spec.general_manifest and spec.replays:
        general = load(spec.general_manifest, "general_manifest")
    if spec.general_validation_manifest:
        general_validation = load(spec.general_validation_manifest, "general_validation_manifest")
    shortest_s, longest_s = spec.min_duration_s, spec.max_duration_s
    sets = Sets(
        learnable(train, "train_manifest", shortest_s, longest_s, warn),
        validation,
        learnable(general, "general_manifest", shortest_s, longest_s, warn),
        general_validation,
    )
    if not sets.train:
        problem = f"no row to learn from: text, and {shortest_s:g} to {longest_s:g} s of audio, are needed"
        raise _bad("train_manifest", f"{spec.train_manifest}: {problem}")
    both = overlap(sets.pool, validation)
    if both:
        warn(f"{len(both)} validation recordings are trained on too ({both[0]}): the validation WER flatters")
    return sets


def overlap(train: Sequence[Row], validation: Sequence[Row]) -> list[str]:
    """Names of validation files that are also trained on."""
    trained = {row.audio for row in train}
    return [row.named for row in validation if row.audio in trained]


@dataclass(frozen=True)
class DataStats:
    """A data set in numbers. `sha256` is over each row's text, duration and audio size in bytes, in order."""

    rows: int
    hours: float
    longest_s: float
    sha256: str


def stats(rows: Sequence[Row]) -> DataStats:
    """Rows, hours, longest row and hash of a data set; names and places do not count."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.text}\0{row.duration_s:.3f}\0{row.bytes}\n".encode())
    seconds = [row.duration_s for row in rows]
    return DataStats(len(rows), round(sum(seconds) / 3600, 5), max(seconds, default=0.0), digest.hexdigest())


def write_pool(rows: Sequence[Row], path: Path) -> None:
    """The manifest our own training reads: absolute paths, kept out of the artefacts."""
    write_manifest(path, [_as_row(row, row.audio) for row in rows])


def publish(out: Path, name: str, rows: Sequence[Row]) -> str:
    """Write OUT/data/`name`.jsonl for finetune.yaml, without a path of this machine; returns its relative path.

    Each folder of recordings is linked as OUT/data/audio/<hash>, and rows name files through the link.
    """
    links = out / "data" / "audio"
    links.mkdir(parents=True, exist_ok=True)
    named = []
    for row in rows:
        folder = Path(row.audio).parent
        link = links / hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        if not link.is_symlink():
            link.symlink_to(folder, target_is_directory=True)
        named.append(_as_row(row, f"audio/{link.name}/{Path(row.audio).name}"))
    write_manifest(out / "data" / f"{name}.jsonl", named)
    return f"data/{name}.jsonl"


def link_base(out: Path, base: str) -> str:
    """Link the base model as OUT/data/base.nemo for finetune.yaml; returns the relative path."""
    link = out / "data" / "base.nemo"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(base)
    return "data/base.nemo"


def forget(folder: Path) -> None:
    """Remove a folder of scratch files."""
    shutil.rmtree(folder, ignore_errors=True)


def _as_row(row: Row, audio: str) -> dict[str, Any]:
    made = {"audio_filepath": audio, "text": row.text, "duration": round(row.duration_s, 4)}
    return made | ({"lang": row.lang} if row.lang else {})
