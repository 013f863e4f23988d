"""Find every fault of a NeMo manifest in one pass, by line and field, from the rows and the audio headers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from launcher.data.convert import AUDIO_SUFFIXES, RATE_HZ
from launcher.data.headers import Header, HeaderError, read_header
from launcher.data.rowcheck import Finding, Row, RowChecker
from launcher.data.tokenizers import describe, load_tokenizer
from launcher.errors import BadInputError

_BATCH = 512
_THREADS = 8  # headers wait on the disk, above all on a network disk
MAX_DURATION_ERROR_S, MAX_DURATION_ERROR = 0.05, 0.01  # of a stated duration against the header: the larger counts
_MAX_CHARACTERS_PER_S = 40  # twice the fastest speech: the words belong to another recording
_CONVERT = "launcher import converts any recording to 16 kHz mono."
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckResult:
    """What a manifest holds and every fault in it. `hours` counts the rows whose duration is a duration."""

    manifest: Path
    rows: int
    hours: float
    longest_s: float
    categories: dict[str, int]  # entity_category -> rows
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    max_duration_s: float | None = None
    dropped_rows: int = 0  # longer than max_duration_s: training would pass them over
    dropped_hours: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings may be there)."""
        return not self.errors


def check_manifest(
    path: Path,
    *,
    max_duration_s: float | None = None,
    tokenizer: Path | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Check a manifest of NeMo rows: JSON, fields, durations, texts, audio headers, duplicates.

    Reads headers only, never whole recordings. `tokenizer` is a .nemo or a tokenizer file: texts it cannot write are
    errors. Faults in the manifest are findings, never exceptions; BadInputError is raised for a manifest or tokenizer
    that cannot be read at all, and for a limit that is none.
    """
    if max_duration_s is not None and not 0 < max_duration_s < float("inf"):
        raise BadInputError("is not a positive number of seconds.", key="--max-duration", value=max_duration_s)
    pieces = load_tokenizer(tokenizer) if tokenizer else None
    path = Path(os.path.abspath(path))  # noqa: PTH100  (links stay as the user wrote them)
    _refuse_no_manifest(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror}).", file=path) from error
    checker = RowChecker(path.parent)
    # One bar for both passes: reading the rows is its first half, the headers its second.
    rows = checker.read(raw, progress and (lambda done, of: progress(done, 2 * of)))
    findings = checker
    headers = _headers(rows, progress and (lambda done, of: progress(of + done, 2 * of)))
    _check_audio(rows, headers, findings)
    _check_repeats(rows, headers, findings)
    if pieces is not None:
        for row in rows:
            lacking = pieces.missing(row.text) if row.text else ""
            if lacking:
                lower = not pieces.missing(row.text.lower()) if row.text else False
                fix = (
                    "Write it in lower case." if lower
                    else "Spell it with letters the model knows, or extend its vocabulary."
                )  # fmt: skip
                findings.error(row.line, "text", f"the tokenizer cannot write {describe(lacking)}.", fix)
    long = [row.duration for row in rows if row.duration and max_duration_s and row.duration > max_duration_s]
    durations = [row.duration for row in rows if row.duration is not None]
    return CheckResult(
        manifest=path,
        rows=checker.objects,
        hours=sum(durations) / 3600,
        longest_s=max(durations, default=0.0),
        categories=dict(sorted(Counter(row.category for row in rows if row.category).items())),
        errors=tuple(sorted(findings.errors, key=lambda f: f.line)),
        warnings=tuple(sorted(findings.warnings, key=lambda f: f.line)),
        max_duration_s=max_duration_s,
        dropped_rows=len(long),
        dropped_hours=sum(long) / 3600,
    )


def _refuse_no_manifest(path: Path) -> None:
    suffix = path.suffix.lower()
    kind = (
        "folder" if path.is_dir()
        else "table" if suffix in {".csv", ".tsv"}
        else "recording" if suffix in AUDIO_SUFFIXES
        else None
    )  # fmt: skip
    if kind is not None:
        fix = "To make one of recordings and transcripts: launcher import FOLDER --out DIR"
        raise BadInputError(f"is a {kind}, not a manifest.", file=path, fix=fix)


def _headers(rows: Sequence[Row], progress: Progress | None) -> dict[str, Header | str]:
    """The header of each recording named, or why there is none; each file is opened once."""
    paths = list(dict.fromkeys(row.audio for row in rows if row.audio))
    batches = [paths[at : at + _BATCH] for at in range(0, len(paths), _BATCH)]
    found: dict[str, Header | str] = {}

    def read(batch: Sequence[str]) -> list[Header | str]:
        return [_header(path) for path in batch]

    with ThreadPoolExecutor(_THREADS) as pool:
        for batch, headers in zip(batches, pool.map(read, batches), strict=True):
            found.update(zip(batch, headers, strict=True))
            if progress:
                progress(len(found), len(paths))
    return found


def _header(path: str) -> Header | str:
    try:
        return read_header(path)
    except HeaderError as error:
        return str(error)


def _check_audio(rows: Sequence[Row], headers: dict[str, Header | str], findings: RowChecker) -> None:
    for row in rows:
        if row.audio is None:
            continue
        header = headers[row.audio]
        if isinstance(header, str):
            fix = (
                "Correct the path, or remove the row." if header == "no such file"
                else f"Replace the recording, or remove the row; {_CONVERT}"
            )  # fmt: skip
            findings.error(row.line, "audio_filepath", f"{header}: {row.name!r}.", fix)
            continue
        if header.rate_hz != RATE_HZ:
            findings.error(row.line, "audio_filepath", f"{header.rate_hz:,} Hz instead of {RATE_HZ:,}.", _CONVERT)
        if header.channels != 1:
            findings.error(row.line, "audio_filepath", f"{header.channels} channels instead of 1.", _CONVERT)
        if row.duration is not None:
            _check_length(row, row.duration, header.duration_s, findings)


def _check_length(row: Row, stated: float, real: float, findings: RowChecker) -> None:
    allowed = max(MAX_DURATION_ERROR_S, MAX_DURATION_ERROR * real)
    if row.offset is not None:
        if row.offset + stated > real + allowed:
            findings.error(
                row.line,
                "offset",
                f"offset and duration end at {row.offset + stated:.2f} s, the recording at {real:.2f} s.",
                "Shorten the part.",
            )
    elif abs(stated - real) > allowed:
        findings.error(
            row.line, "duration", f"says {stated:g} s, the recording is {real:.2f} s long.", f"Write {real:.3f}."
        )
    if row.text and len(row.text) > _MAX_CHARACTERS_PER_S * max(stated, 0.5):
        findings.warning(
            row.line, "text", f"{len(row.text)} characters in {stated:g} s: faster than anyone speaks.",
            "Check that these words belong to this recording.",
        )  # fmt: skip


def _check_repeats(rows: Sequence[Row], headers: dict[str, Header | str], findings: RowChecker) -> None:
    """Duplicate rows, one recording under two texts, and (FLAC keeps a checksum) one sound under two names."""
    first: dict[tuple[str, float | None, float | None], Row] = {}
    sounds: dict[bytes, Row] = {}
    for row in rows:
        if row.audio is None or row.text is None:
            continue
        part = (row.audio, row.offset, row.duration if row.offset is not None else None)
        before = first.setdefault(part, row)
        if before is not row:
            if before.text == row.text:
                findings.error(row.line, "audio_filepath", f"repeats line {before.line}.", "Remove one of them.")
            else:
                problem = f"line {before.line} has another text for the same recording."
                findings.error(row.line, "text", problem, "Keep the right one.")
            continue
        header = headers[row.audio]
        if isinstance(header, str) or header.sound_md5 is None or row.offset is not None:
            continue
        alike = sounds.setdefault(header.sound_md5, row)
        if alike is row or alike.audio == row.audio:
            continue
        if alike.text == row.text:
            findings.warning(row.line, "audio_filepath", f"the same sound as line {alike.line}, under another name.",
                             "Remove one of them.")  # fmt: skip
        else:
            findings.error(row.line, "text", f"line {alike.line} has another text for the same sound.",
                           "Keep the right one.")  # fmt: skip


def counted_problems(findings: Sequence[Finding]) -> Iterator[tuple[int, str]]:
    """How often each field was at fault, most often first: for a summary of thousands."""
    for name, count in Counter(finding.field for finding in findings).most_common():
        yield count, name
