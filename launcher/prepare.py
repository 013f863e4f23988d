"""Makes a job's data ready: training and held-out sets, by content, so that the same job is split once."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.data import split_manifest
from launcher.errors import BadInputError
from launcher.home import Home
from launcher.job import JobData
from recipes.contract import sha256_of, write_json
from recipes.manifest import read_manifest

FACTS = "prepared.json"
FEWEST_GROUPS = 3  # with fewer speakers, holding one out leaves too little on either side


@dataclass(frozen=True)
class Prepared:
    """A job's four manifests (the general ones may be absent) and what they hold."""

    train: str
    validation: str
    general_train: str | None
    general_validation: str | None
    train_rows: int
    validation_rows: int
    train_hours: float
    validation_hours: float
    general_rows: int
    general_hours: float
    general_train_rows: int
    general_train_hours: float
    longest_s: float
    lengths_s: tuple[float, ...]  # of the clips to learn from, replayed ones included: every 20th part, ascending
    longest_text: int  # characters, of the same clips
    characters: int  # of all texts of the same clips
    audio_gb: float  # of the files that all four manifests name, 10^9 bytes
    grouped_by: str | None
    has_terms: bool
    warnings: tuple[str, ...]
    digests: dict[str, str]
    unlabelled: str | None = None  # of a job that labels; then there is no other, and `validation_*` count its rows

    def manifests(self) -> dict[str, Path]:
        """Name -> path of each manifest there is."""
        named = {
            "train": self.train, "validation": self.validation,
            "general_train": self.general_train, "general_validation": self.general_validation,
            "unlabelled": self.unlabelled,
        }  # fmt: skip
        return {name: Path(path) for name, path in named.items() if path}

    def facts(self) -> dict[str, Any]:
        """JSON-ready, for the plan."""
        return {**asdict(self), "warnings": list(self.warnings), "lengths_s": list(self.lengths_s)}


def prepare(data: JobData, home: Home, priority: tuple[str, ...] = ()) -> Prepared:
    """Split what needs splitting (seeded, stratified, speakers apart); raises BadInputError with the way out."""
    group = _group_field(data)
    parts = [sha256_of(path) for path in (data.manifest, data.validation, data.general) if path is not None]
    paths = [str(data.manifest), str(data.validation), str(data.general)]
    key_text = json.dumps([paths, parts, data.val_fraction, data.seed, group, priority])
    folder = home.prepared / hashlib.sha256(key_text.encode()).hexdigest()[:24]
    held = load_prepared(folder)
    if held is not None:
        return held
    warnings: list[str] = []
    if data.validation is not None:
        train, validation = data.manifest, data.validation
    else:
        split = split_manifest(
            data.manifest, folder, val_fraction=data.val_fraction, seed=data.seed, group_by=group, priority=priority
        )
        train, validation = split.train, split.validation
        warnings += split.warnings
    general_train: Path | None = None
    general_validation: Path | None = None
    if data.general is not None:
        general = split_manifest(data.general, folder / "general", val_fraction=data.val_fraction, seed=data.seed)
        general_train, general_validation = general.train, general.validation
    else:
        warnings.append("no general set: what tuning forgets will not be measured (data.general)")
    train_rows, validation_rows = read_manifest(train), read_manifest(validation)
    general_rows = read_manifest(general_validation) if general_validation else []
    general_train_rows = read_manifest(general_train) if general_train else []
    learnt = [*train_rows, *general_train_rows]
    texts = [len(str(row.get("text", ""))) for row in learnt]
    made = {"train": train, "validation": validation}
    if general_train and general_validation:
        made |= {"general_train": general_train, "general_validation": general_validation}
    every = [*train_rows, *validation_rows]
    prepared = Prepared(
        train=str(train),
        validation=str(validation),
        general_train=str(general_train) if general_train else None,
        general_validation=str(general_validation) if general_validation else None,
        train_rows=len(train_rows),
        validation_rows=len(validation_rows),
        train_hours=_hours(train_rows),
        validation_hours=_hours(validation_rows),
        general_rows=len(general_rows),
        general_hours=_hours(general_rows) if general_rows else 0.0,
        general_train_rows=len(general_train_rows),
        general_train_hours=_hours(general_train_rows) if general_train_rows else 0.0,
        lengths_s=lengths_of([float(row["duration"]) for row in learnt]),
        longest_text=max(texts, default=0),
        characters=sum(texts),
        audio_gb=sum(_audio_bytes(path) for path in made.values()) / 1e9,
        longest_s=max((float(row["duration"]) for row in every), default=0.0),
        grouped_by=group,
        has_terms=any(row.get("term") for row in validation_rows),
        warnings=tuple(warnings),
        digests={name: sha256_of(path) for name, path in made.items()},
    )
    write_json(folder / FACTS, prepared.facts())
    return prepared


def _group_field(data: JobData) -> str | None:
    """The field whose groups stay together: as the job says, or voice_id where there are enough voices."""
    if data.group_by == "none" or data.validation is not None:
        return None
    if data.group_by != "auto":
        return data.group_by
    voices = {
        voice if voice is None or isinstance(voice, str) else json.dumps(voice, sort_keys=True)
        for voice in (row.get("voice_id") for row in read_manifest(data.manifest))
    }
    return "voice_id" if None not in voices and len(voices) >= FEWEST_GROUPS else None


def load_prepared(folder: Path) -> Prepared | None:
    """What was made ready there before, where it is whole and as it was."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        held = Prepared(**{**facts, **{name: tuple(facts[name]) for name in ("warnings", "lengths_s")}})
        whole = all(sha256_of(path) == held.digests[name] for name, path in held.manifests().items())
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return held if whole else None


def lengths_of(seconds: list[float]) -> tuple[float, ...]:
    """The shortest duration, the longest, and 19 between them at equal parts of the rows: what padding depends on."""
    durations = sorted(seconds)
    return tuple(durations[round(part / 20 * (len(durations) - 1))] for part in range(21))


def _audio_bytes(manifest: Path) -> int:
    """Bytes of the audio files of a manifest; a file that is missing now is said to be so at staging."""
    total = 0
    for row in read_manifest(manifest):
        with suppress(OSError):
            total += (manifest.parent / Path(str(row["audio_filepath"])).expanduser()).stat().st_size
    return total


def _hours(rows: list[dict[str, Any]]) -> float:
    total = sum(float(row["duration"]) for row in rows)
    if total <= 0:
        raise BadInputError("a manifest has no audio in it", fix="Check it with: launcher manifest check")
    return round(total / 3600, 6)
