"""The contract between launcher and recipe: `python -m recipes.<name> SPEC.json OUT/`.

OUT/events.jsonl   one JSON object a line: {"t": ISO 8601 UTC, "kind": ..., ...}
OUT/result.json    {"status", "metrics", "artifacts": [relative paths, most worth first]}
OUT/COMPLETE.json  written last: every artefact with its size and SHA-256. No COMPLETE, no success.

What a running fine-tune may be told, by files put into OUT (recipes/finetune/stopping.py); both end in
STOPPED_AT_LIMIT. STOP: finish the step, keep the model, end. TRIM.json {"max_steps": N}: shorten the schedule so
that it comes to its end at step N; it never lengthens.

A fine-tune on several devices, or on several machines (recipes/finetune/places.py), is one recipe all the same: the
first process of the first machine writes these files, and the command ends when all of it has ended. On any other
machine the same command joins the training, writes none of them, and ends 0 with it or with the first one's failure.

Standard library only: the launcher reads these files with the same code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

#: Of how many steps at most a progress event's seconds_per_step is the mean.
MEAN_OF_STEPS = 20

EVENTS, RESULT, COMPLETE = "events.jsonl", "result.json", "COMPLETE.json"


def _as_it_is(text: str) -> str:
    return text


#: What every text written here passes through. The launcher takes its secrets out; a recipe has none.
last_look: Callable[[str], str] = _as_it_is


class RecipeExit(IntEnum):
    """Exit codes of a recipe."""

    DONE = 0
    BAD_INPUT = 10
    OUT_OF_MEMORY = 11  # even after backing off
    DIVERGED = 12  # NaN, or collapse to blank/UNK
    STOPPED_AT_LIMIT = 13  # with a usable checkpoint
    GATE_SAID_NO = 14
    DISK_FULL = 15  # what was whole before is whole still


class RecipeFailure(Exception):  # noqa: N818  (an ending, not always an error: STOPPED_AT_LIMIT)
    """Ends a recipe with one of the contract's exit codes and a message a person can act on."""

    def __init__(self, code: RecipeExit, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


@dataclass(frozen=True)
class Artifact:
    """One file a recipe made: path relative to OUT, size in bytes, SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


def utc_now() -> str:
    """This moment as ISO 8601 UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex, read in 1 MiB pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, text: str, *, as_it_is: bool = False) -> None:
    """Write a text file so that a reader, or a crash, sees the old whole file or the new whole file.

    `as_it_is`: the user's own data, of which nothing may be changed; all else passes through `last_look`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text if as_it_is else last_look(text))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, payload: Any) -> None:
    """Write JSON atomically (sorted by the writer's order, UTF-8, no NaN)."""
    write_atomic(path, json.dumps(payload, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


class EventLog:
    """Appends events, one line each, flushed so that a viewer sees them at once.

    Kinds: `phase` {name}; `progress` {step, total, loss, metrics{}, seconds_per_step, averaged_steps,
    epoch}, averaged_steps: how many of the last steps seconds_per_step is the mean of, null with a validation;
    `throughput` {audio_seconds_per_second, of the last steps alone}; `warning` {message}; `note` {message};
    `trim` {step, total, total_before, message}, when a schedule was shortened; `stage` {name, step, message}, how far
    a language that is learned from nothing has come, at each validation (recipes/finetune/stages.py).
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / EVENTS

    def emit(self, kind: str, **fields: Any) -> None:
        """Append one event; NaN and infinities become null, so that every reader can parse the line."""
        event = {"t": utc_now(), "kind": kind, **{k: _finite(v) for k, v in fields.items()}}
        line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("ab") as file:  # one write, append mode: lines never interleave
            file.write(last_look(line).encode("utf-8"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return value


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Events from a byte offset on, each with the offset just after it; stops before a half-written line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue  # a line torn by a crash and then appended to: skip it, keep the rest
            if isinstance(event, dict):
                yield offset, event


def complete(out: Path, status: str, metrics: dict[str, Any], artifacts: Sequence[str]) -> list[Artifact]:
    """Write result.json and then COMPLETE.json: the recipe's last act. Artefacts most worth first."""
    write_json(out / RESULT, {"status": status, "metrics": metrics, "artifacts": list(artifacts)})
    listed = [Artifact(name, (out / name).stat().st_size, sha256_of(out / name)) for name in [*artifacts, RESULT]]
    write_json(out / COMPLETE, {"t": utc_now(), "status": status, "artifacts": [a.__dict__ for a in listed]})
    return listed


def read_complete(out: Path) -> list[Artifact] | None:
    """What COMPLETE.json lists, or None when it is absent or not whole. Does not check the files."""
    try:
        listed = json.loads((out / COMPLETE).read_text(encoding="utf-8"))["artifacts"]
        return [Artifact(a["path"], int(a["bytes"]), a["sha256"]) for a in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damaged(out: Path, artifacts: Sequence[Artifact]) -> list[str]:
    """The paths among `artifacts` that are missing, of another size, or of another SHA-256."""
    bad = []
    for artifact in artifacts:
        path = out / artifact.path
        whole = path.is_file() and path.stat().st_size == artifact.bytes and sha256_of(path) == artifact.sha256
        if not whole:
            bad.append(artifact.path)
    return bad
