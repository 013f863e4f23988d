"""Split a manifest into training and validation rows: disjoint, stratified, and the same every time."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from launcher.data.selection import Unit, choose_by_category, choose_groups
from launcher.errors import BadInputError, nearest
from recipes.contract import write_atomic
from recipes.manifest import ManifestError, read_rows

TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
UNCATEGORISED = "uncategorised"  # the name rows without an entity_category are counted under
_CHECK = "launcher manifest check lists every fault."
MIN_PRIORITY_ROWS = 5  # below this, movement on held-out rows of a category is noise
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitResult:
    """Where the two halves are, and how many rows of each category went where."""

    train: Path
    validation: Path
    counts: dict[str, dict[str, int]]  # category -> {"train": rows, "validation": rows}
    groups: dict[str, int] | None  # {"train": groups, "validation": groups} with group_by
    warnings: tuple[str, ...]

    def rows(self, side: str) -> int:
        """How many rows went to `side`, "train" or "validation"."""
        return sum(count[side] for count in self.counts.values())


@dataclass(frozen=True)
class _Row:
    line: int
    data: dict[str, Any]
    audio: Path
    category: str


def split_manifest(
    path: Path,
    out: Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 42,
    group_by: str | None = None,
    priority: Sequence[str] = (),
    progress: Progress | None = None,
) -> SplitResult:
    """Write OUT/train.jsonl and OUT/validation.jsonl from the rows of a manifest.

    Within each entity_category, max(1, floor(val_fraction × n)) rows are held out; a category with one row goes to
    training with a warning. Rows with the same recording, by path or by content, stay on one side; so do rows with
    the same `group_by` value. The choice depends on the seed and on the rows (file name, text), not on their order
    or folder. A `priority` category with fewer than 5 rows is refused. Raises BadInputError; then nothing is
    written.
    """
    fraction = _fraction(val_fraction)
    path, out = Path(os.path.abspath(path)), Path(os.path.abspath(out))  # noqa: PTH100
    if path in {out / TRAIN, out / VALIDATION}:
        raise BadInputError("would be overwritten by its own split.", fix="Choose another --out.", file=path)
    rows = _read(path)
    _check_priority(path, rows, priority)
    warnings: list[str] = []
    units = _units(path, rows, group_by, seed, warnings, progress)
    if len(units) < 2:
        raise _too_few(path, rows, group_by)
    held_out = choose_groups(units, fraction) if group_by else choose_by_category(units, fraction)
    if not held_out:
        raise BadInputError(
            "every entity_category has a single recording, so none can be held out.",
            fix="Add rows, or leave entity_category out of the manifest.",
            file=path,
        )
    inside = {index for unit in held_out for index in unit.rows}
    counts = _counts(rows, inside)
    warnings += _remarks(counts, fraction, group_by, len(units) == len(rows))
    for name in priority:
        if not counts[name]["validation"] or not counts[name]["train"]:
            raise BadInputError(
                f"all {name} rows fall on one side: they belong together ({group_by or 'same recording'}).",
                fix="Add rows by other speakers, or drop --group-by.",
                key="--priority",
                file=path,
            )
    _write(out, rows, inside)
    groups = {"train": len(units) - len(held_out), "validation": len(held_out)} if group_by else None
    return SplitResult(out / TRAIN, out / VALIDATION, counts, groups, tuple(warnings))


def _fraction(value: float) -> Fraction:
    try:
        fraction = Fraction(repr(value))  # 0.29 as it was typed, so that 0.29 × 100 is 29
    except ValueError:
        fraction = Fraction(0)
    if not 0 < fraction < 1:
        raise BadInputError(f"{value!r} is not between 0 and 1.", fix="0.2 holds out a fifth.",
                            key="--val-fraction", value=value)  # fmt: skip
    return fraction


def _read(path: Path) -> list[_Row]:
    try:
        read = read_rows(path)
    except ManifestError as error:
        raise BadInputError(error.problem, fix=error.fix, file=error.file, line=error.line) from None
    rows = []
    for line, data in read:
        name = data.get("audio_filepath")
        if not isinstance(name, str) or not name or "\0" in name:
            raise BadInputError("names no recording.", fix=_CHECK,
                                file=path, line=line, key="audio_filepath", value=name)  # fmt: skip
        length = data.get("duration", 1)
        if isinstance(length, bool) or not isinstance(length, int | float) or not 0 < length < float("inf"):
            raise BadInputError("is not a positive number of seconds.", fix=_CHECK,
                                file=path, line=line, key="duration", value=length)  # fmt: skip
        category = data.get("entity_category")
        if category is not None and not isinstance(category, str):
            raise BadInputError("is not text.", file=path, line=line, key="entity_category", value=category)
        audio = Path(os.path.normpath(path.parent / name))
        rows.append(_Row(line, data, audio, (category or "").strip() or UNCATEGORISED))
    if len(rows) < 2:
        raise BadInputError(f"{len(rows)} rows cannot be split." if len(rows) != 1 else "one row cannot be split.",
                            fix="At least 2 are needed.", file=path)  # fmt: skip
    return rows


def _check_priority(path: Path, rows: Sequence[_Row], priority: Sequence[str]) -> None:
    have = Counter(row.category for row in rows)
    for name in priority:
        if have[name] >= MIN_PRIORITY_ROWS:
            continue
        close = nearest(name, have) if not have[name] else None
        hint = f"Did you mean {close}? " if close else ""
        raise BadInputError(
            f"{have[name]} rows of {name}: fewer than {MIN_PRIORITY_ROWS} say nothing once some are held out.",
            fix=f"{hint}Record at least {MIN_PRIORITY_ROWS - have[name]} more, or leave {name} out of --priority.",
            key="--priority",
            file=path,
        )


# --- What belongs together -------------------------------------------------------------------------------------


def _units(
    path: Path,
    rows: Sequence[_Row],
    group_by: str | None,
    seed: int,
    warnings: list[str],
    progress: Progress | None,
) -> list[Unit]:
    """Rows joined into units that may not be taken apart: by recording, by its bytes, by group."""
    parent = list(range(len(rows)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(buckets: dict[Any, list[int]]) -> None:
        for members in buckets.values():
            for other in members[1:]:
                parent[find(other)] = find(members[0])

    groups: dict[Any, list[int]] = defaultdict(list)
    if group_by:
        groups = _groups(path, rows, group_by)
        join(groups)
    content = _same_content(path, rows, progress)
    before = len({find(i) for i in range(len(rows))})
    join(content)
    after = len({find(i) for i in range(len(rows))})
    doubled = [members for members in content.values() if len({rows[i].audio for i in members}) > 1]
    if doubled:
        lines = " and ".join(str(rows[i].line) for i in doubled[0][:2])
        what = "1 recording occurs" if len(doubled) == 1 else f"{len(doubled):,} recordings occur"
        first = "" if len(doubled) == 1 else "the first: "
        warnings.append(f"{what} more than once, under other names ({first}lines {lines}); each stays on one side")
    if group_by and after < before:
        if after < 2:
            raise BadInputError(
                f"identical recordings under different {group_by} tie all groups together.",
                fix="Remove the copies (launcher manifest check lists them), or drop --group-by.",
                file=path,
            )
        warnings.append(f"{before - after} {group_by} groups were joined to others: they share a recording")
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(rows)):
        members[find(index)].append(index)
    return [_unit(seed, rows, indices) for indices in members.values()]


def _unit(seed: int, rows: Sequence[_Row], indices: list[int]) -> Unit:
    """A unit with its place in the draw: a hash of the seed and of what its rows are, not of where they stand."""
    keys = sorted(
        json.dumps([rows[i].audio.name, rows[i].data.get("text"), rows[i].data.get("offset"), str(rows[i].audio)])
        for i in indices
    )
    # Folder names only break ties, so that a moved data set is split as before.
    names = sorted(json.dumps(json.loads(key)[:3]) for key in keys)
    draw = hashlib.blake2b(json.dumps([seed, names]).encode(), digest_size=16).hexdigest()
    return Unit((draw, keys[0]), tuple(indices), Counter(rows[i].category for i in indices))


def _groups(path: Path, rows: Sequence[_Row], field: str) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = defaultdict(list)
    missing = []
    for index, row in enumerate(rows):
        value = row.data.get(field)
        if value is None or value == "":
            missing.append(row.line)
        else:
            groups[value if isinstance(value, str) else json.dumps(value, sort_keys=True)].append(index)
    if missing:
        close = nearest(field, {key for row in rows for key in row.data} - {field}) if not groups else None
        hint = f"Did you mean {close}? " if close else ""
        raise BadInputError(
            f"{len(missing)} of {len(rows)} rows have no {field}, so they cannot be kept apart from the others.",
            fix=f"{hint}Fill it in, or drop --group-by.",
            file=path,
            line=missing[0],
            key=field,
        )
    return groups


def _same_content(path: Path, rows: Sequence[_Row], progress: Progress | None) -> dict[Any, list[int]]:
    """Rows by the content of their recording. Only files that agree in size and in a sample are read whole."""
    by_path: dict[Path, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_path[row.audio].append(index)
    by_size: dict[int, list[Path]] = defaultdict(list)
    missing = []
    for audio, indices in by_path.items():
        try:
            by_size[audio.stat().st_size].append(audio)
        except OSError:
            missing.append((rows[indices[0]].line, audio))
    if missing:
        line, audio = missing[0]
        more = f" ({len(missing)} recordings are missing in all)" if len(missing) > 1 else ""
        raise BadInputError(f"no such recording: {audio}{more}.", fix=_CHECK,
                            file=path, line=line, key="audio_filepath")  # fmt: skip
    content: dict[Any, list[int]] = defaultdict(list)
    done = 0
    for size, audios in by_size.items():
        samples: dict[Any, list[Path]] = defaultdict(list)
        for audio in audios:
            samples[_digest(audio, size // 2, 4096) if len(audios) > 1 else b""].append(audio)
            done += 1
            if progress and (done % 256 == 0 or done == len(by_path)):
                progress(done, len(by_path))
        for sample, alike in samples.items():
            for audio in alike:
                whole = _digest(audio, 0, None) if len(alike) > 1 else b""
                content[size, sample, whole] += by_path[audio]
    return content


def _digest(audio: Path, start: int, count: int | None) -> bytes:
    try:
        with audio.open("rb") as file:
            if count is None:
                return hashlib.file_digest(file, "blake2b").digest()
            file.seek(start)
            return file.read(count)
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror}).", file=audio) from error


# --- Outcome ---------------------------------------------------------------------------------------------------


def _too_few(path: Path, rows: Sequence[_Row], group_by: str | None) -> BadInputError:
    if not group_by:
        return BadInputError(f"its {len(rows)} rows all hold the same recording.", file=path)
    value = rows[0].data[group_by]
    return BadInputError(
        f"all {len(rows)} rows have the same {group_by} ({value!r}): nothing would be left to hold out.",
        fix=f"Add rows of another {group_by}, or drop --group-by.",
        key="--group-by",
        file=path,
    )


def _counts(rows: Sequence[_Row], inside: set[int]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for name in sorted({row.category for row in rows}, key=lambda name: (name == UNCATEGORISED, name)):
        counts[name] = {"train": 0, "validation": 0}
    for index, row in enumerate(rows):
        counts[row.category]["validation" if index in inside else "train"] += 1
    return counts


def _remarks(
    counts: dict[str, dict[str, int]], fraction: Fraction, group_by: str | None, all_single: bool
) -> list[str]:
    remarks = []
    for name, count in counts.items():
        n = count["train"] + count["validation"]
        if n == 1 and count["train"]:
            remarks.append(f"{name} has a single row: it went to training, nothing will measure it")
        elif not count["validation"]:
            reason = f"of {group_by}" if group_by else "same recording"
            remarks.append(f"no row of {name} could be held out: its {n} rows belong together ({reason})")
        elif not count["train"]:
            remarks.append(f"all {n} rows of {name} were held out: they belong together ({group_by or 'recording'})")
        elif n < MIN_PRIORITY_ROWS and name != UNCATEGORISED:
            remarks.append(f"{name} has {n} rows: what the {count['validation']} held out say will be noisy")
    total = sum(sum(count.values()) for count in counts.values())
    share = Fraction(sum(count["validation"] for count in counts.values()), total)
    if not all_single and total >= 10 and abs(share - fraction) > fraction / 2:
        remarks.append(f"{float(share):.0%} of the rows are held out instead of {float(fraction):.0%}: "
                       f"{'groups' if group_by else 'copies of a recording'} cannot be taken apart")  # fmt: skip
    return remarks


def _write(out: Path, rows: Sequence[_Row], inside: set[int]) -> None:
    """Both files, with relative audio paths made absolute so that they resolve from the new folder."""
    sides: dict[bool, list[str]] = {False: [], True: []}
    for index, row in enumerate(rows):
        # `split` travels with the row, so that a score can say that it is of held-out rows only.
        side = "validation" if index in inside else "train"
        data = {**row.data, "audio_filepath": str(row.audio), "split": side}
        sides[index in inside].append(json.dumps(data, ensure_ascii=False) + "\n")
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Validation first: a kill in between must not leave a new training set beside an old validation set
        # unseen, so the old training file goes before anything new appears.
        (out / TRAIN).unlink(missing_ok=True)
        write_atomic(out / VALIDATION, "".join(sides[True]))
        write_atomic(out / TRAIN, "".join(sides[False]))
    except OSError as error:
        raise BadInputError(f"cannot be written ({error.strerror}).", key="--out", file=out) from error
