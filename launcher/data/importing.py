"""Turn a folder of recordings and transcripts into 16 kHz mono audio and a manifest; stops and starts safely."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launcher.data.convert import RATE_HZ, Converted
from launcher.data.entries import Entry, Fault, Table, counted
from launcher.data.journal import JOURNAL, Journal
from launcher.data.layouts import Folder, Names, find_transcripts, scan
from launcher.data.pool import Failed, Task, convert_all
from launcher.errors import BadInputError
from recipes.manifest import write_manifest

MANIFEST, SKIPPED = "manifest.jsonl", "skipped.csv"
Progress = Callable[[int, int], None]  # (recordings done, recordings in all)


@dataclass(frozen=True)
class Skipped:
    """Something that was left out, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class ImportResult:
    """What an import made. `hours` is the length of the audio written, `formats` what it was before."""

    manifest: Path
    skipped_csv: Path
    rows: int
    hours: float
    skipped: tuple[Skipped, ...]
    transcripts: tuple[Path, ...]
    formats: dict[str, int] = field(default_factory=dict)  # "mp3, 44.1 kHz stereo" -> recordings
    reused: int = 0  # recordings that an earlier, interrupted import had already converted
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Clip:
    """A recording paired with its words, on its way to one output file."""

    source: Path
    entry: Entry
    fingerprint: str


def import_recordings(
    path: Path,
    out: Path,
    *,
    transcripts: Sequence[Path] = (),
    language: str | None = None,
    audio_format: Literal["flac", "wav"] = "flac",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Convert the recordings under `path` that have a transcript, and write OUT/manifest.jsonl and skipped.csv.

    `path` is a folder, or a transcripts file whose folder holds the recordings. Nothing is written when the input
    is wrong. A second call goes on where a first one stopped and redoes nothing that is finished. `language`
    becomes each row's `lang`; rows whose transcript says another language are left out. Raises BadInputError.
    """
    root, given = _root(path, transcripts)
    out = Path(os.path.abspath(out))  # noqa: PTH100  (resolve() would follow the user's own links)
    _refuse_out(root, out)
    found = scan(root, out)
    names = Names(root, found.audio)
    if not found.audio and not given:
        raise BadInputError("no audio in this folder.", fix="It should hold mp3, m4a, ogg, flac or wav files.",
                            file=root)  # fmt: skip
    tables = find_transcripts(found, given, names)
    clips, faults = _pair(found, tables, names, language)
    if not clips:
        raise _nothing_pairs(found, tables, faults)
    journal = Journal(out, root)
    targets = _targets(clips, root, out / "audio", f".{audio_format}")
    with _disk_errors(out), journal:
        done = {clip: known for clip in clips if (known := journal.finished(targets[clip], clip.fingerprint))}
        todo = [Task(clip.source, targets[clip], clip.entry.segment) for clip in clips if clip not in done]
        by_target = {targets[clip]: clip for clip in clips}
        total = len(clips)
        finished = len(done)
        if progress:
            progress(finished, total)
        for target, outcome in convert_all(todo, workers):
            finished += 1
            clip = by_target[target]
            if isinstance(outcome, Failed):
                faults.append(Fault(_shown(clip.source, root), outcome.why))
            else:
                done[clip] = outcome
                journal.note(target, clip.fingerprint, outcome)
            if progress:
                progress(finished, total)
        if not done:
            journal.discard()
            first = faults[-1]
            raise BadInputError(
                f"not one of {counted(total, 'recording')} can be used. {first.name}: {first.why}.", file=root
            )
        reused = total - len(todo)
        return _write(out, [(c, targets[c], done[c]) for c in clips if c in done], faults, tables, language, reused)


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Turn what the file system refuses into one clear error."""
    try:
        yield
    except OSError as error:
        raise BadInputError(f"cannot be written ({error.strerror or error}).", key="--out", file=out) from error


def _root(path: Path, transcripts: Sequence[Path]) -> tuple[Path, list[Path]]:
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100
    given = [Path(os.path.abspath(t.expanduser())) for t in transcripts]  # noqa: PTH100
    if path.is_dir():
        # As everywhere on a command line, a relative --transcripts is one of the current folder; failing that
        # it is one of PATH, which is how the error about several files names them.
        given = [
            inside if not now.exists() and not raw.is_absolute() and (inside := path / raw).exists() else now
            for now, raw in zip(given, transcripts, strict=True)
        ]
        for one in given:
            if not one.exists():
                raise BadInputError("no such file.", key="--transcripts", file=one)
        return path, given
    if not path.exists():
        raise BadInputError("no such folder.", file=path)
    if path.suffix.lower() in {".csv", ".tsv", ".psv", ".jsonl", ".ndjson", ".json", ".txt"}:
        return path.parent, given or [path]
    raise BadInputError("not a folder.", fix="Give the folder with the recordings (unpack an archive first).",
                        file=path)  # fmt: skip


def _refuse_out(root: Path, out: Path) -> None:
    if out == root or (out.exists() and out.samefile(root)):
        raise BadInputError("the recordings' own folder.", fix="Choose another folder for what is made.",
                            key="--out", file=out)  # fmt: skip
    parent = next((p for p in (out, *out.parents) if p.exists()), out)
    if not parent.is_dir():
        raise BadInputError(f"{parent} is a file.", fix="Choose a folder.", key="--out", file=out)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadInputError(f"{parent} cannot be written.", key="--out", file=out)
    if (out / MANIFEST).exists() and not (out / JOURNAL).exists():
        raise BadInputError(f"holds a {MANIFEST} that import did not make.", fix="Choose another folder.",
                            key="--out", file=out)  # fmt: skip


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


# --- Pairing ---------------------------------------------------------------------------------------------------


def _pair(
    found: Folder, tables: Iterable[Table], names: Names, language: str | None
) -> tuple[list[_Clip], list[Fault]]:
    """Each transcript with its recording; whatever stays alone is a fault with its why."""
    faults = [*found.skipped]
    claims: dict[tuple[Path, tuple[float, float] | None], list[Entry]] = {}
    named: set[Path] = set()
    for table in tables:
        faults += table.faults
        for fault in table.faults:
            named.update(names.find(fault.name, table.path.parent))
        for entry in table.entries:
            matches = names.find(entry.name, entry.file.parent)
            named.update(matches)
            why = _unusable(entry, matches, language, found.root)
            if why:
                faults.append(Fault(entry.name, why))
            else:
                claims.setdefault((matches[0], entry.segment), []).append(entry)
    clips = []
    for (source, _segment), entries in claims.items():
        if len({entry.text for entry in entries}) > 1:
            where = " and ".join(_where(entry, found.root) for entry in entries[:2])
            faults.append(Fault(_shown(source, found.root), f"two different transcripts for it: {where}"))
            continue
        first, *again = entries
        faults += [
            Fault(e.name, f"{_where(e, found.root)} repeats {_where(first, found.root)}") for e in again
        ]  # fmt: skip
        status = source.stat()
        stamp = f"{source}\0{status.st_size}\0{status.st_mtime_ns}\0{first.segment}"
        clips.append(_Clip(source, first, hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest()))
    faults += [Fault(_shown(p, found.root), "no transcript for it") for p in found.audio if p not in named]
    return clips, faults


def _where(entry: Entry, root: Path) -> str:
    return f"{_shown(entry.file, root)} line {entry.line}"


def _unusable(entry: Entry, matches: list[Path], language: str | None, root: Path) -> str | None:
    if not matches:
        return f"no such recording ({_where(entry, root)})"
    if len(matches) > 1:
        return f"{_where(entry, root)} may mean {_shown(matches[0], root)} or {_shown(matches[1], root)}"
    if not entry.text:
        return f"its transcript is empty ({_where(entry, root)})"
    if language and entry.language and _primary(entry.language) != _primary(language):
        return f"its language is {entry.language}, not {language}"
    return None


def _primary(language: str) -> str:
    return re.split(r"[-_]", language.casefold())[0]


def _nothing_pairs(found: Folder, tables: Sequence[Table], faults: list[Fault]) -> BadInputError:
    path = tables[0].path
    alone = [f for f in faults if f.why.startswith("no such recording")]
    if alone and found.audio:
        have = _shown(found.audio[0], found.root)
        problem = f"no name in it is that of a recording here (it says {alone[0].name!r}, here is {have!r})."
        return BadInputError(problem, fix="Correct the names, or give the other file: --transcripts.", file=path)
    reason = f" {faults[0].name}: {faults[0].why}." if faults else ""
    return BadInputError(f"no recording has a usable transcript.{reason}", file=path)


# --- Output ----------------------------------------------------------------------------------------------------


def _targets(clips: Sequence[_Clip], root: Path, audio: Path, suffix: str) -> dict[_Clip, Path]:
    """A distinct, plain output name for each clip; a name that needed changing or repeats gets a hash."""
    wanted: dict[_Clip, tuple[str, str]] = {}
    for clip in clips:
        shown = _shown(clip.source, root)
        inside = clip.source.is_relative_to(root)
        parts = Path(shown).with_suffix("").parts if inside else (clip.source.stem,)
        plain = "/".join(_slug(part) for part in parts)
        segment = clip.entry.segment
        if segment:
            plain += f"_{round(segment[0] * 1000)}-{round((segment[0] + segment[1]) * 1000)}ms"
        wanted[clip] = (plain, "/".join(parts) if not segment else plain)
    used = Counter(plain.casefold() for plain, _ in wanted.values())
    targets = {}
    for clip, (plain, raw) in wanted.items():
        name = plain
        if used[plain.casefold()] > 1 or plain != raw:
            name += "-" + hashlib.sha256(f"{clip.source}{clip.entry.segment}".encode()).hexdigest()[:8]
        targets[clip] = audio / (name + suffix)
    return targets


def _utf8(name: str) -> str:
    """A file name as text that any output can hold; bytes that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def _slug(part: str) -> str:
    """A file name without white space, control characters, leading dots or dashes, of at most 80 characters."""
    part = unicodedata.normalize("NFC", part)
    return re.sub(r"[^\w.\-+]+", "_", part).lstrip(".-")[:80] or "_"


def _write(
    out: Path,
    finished: list[tuple[_Clip, Path, Converted]],
    faults: list[Fault],
    tables: Sequence[Table],
    language: str | None,
    reused: int,
) -> ImportResult:
    rows: list[dict[str, Any]] = []
    for clip, target, made in finished:
        entry = clip.entry
        row: dict[str, Any] = {
            "audio_filepath": str(target), "text": entry.text, "duration": round(made.duration_s, 7)
        }  # fmt: skip
        if entry.voice_id is not None:
            row["voice_id"] = entry.voice_id
        if language or entry.language:
            row["lang"] = language or entry.language
        rows.append({**row, **entry.extra})
    skipped = tuple(Skipped(_utf8(fault.name), _utf8(fault.why)) for fault in faults)
    part = out / f".{SKIPPED}.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "why"])
        writer.writerows((s.path, s.why) for s in skipped)
    part.replace(out / SKIPPED)
    write_manifest(out / MANIFEST, rows)
    silent = [str(target) for _, target, made in finished if made.peak == 0]
    warnings = [f"digital silence: {counted(len(silent), 'recording')} (the first: {silent[0]})"] if silent else []
    formats = Counter(str(made.source) for _, _, made in finished)
    return ImportResult(
        manifest=out / MANIFEST,
        skipped_csv=out / SKIPPED,
        rows=len(rows),
        hours=sum(made.frames for _, _, made in finished) / RATE_HZ / 3600,
        skipped=skipped,
        transcripts=tuple(table.path for table in tables),
        formats=dict(formats.most_common()),
        reused=reused,
        warnings=tuple(warnings),
    )
