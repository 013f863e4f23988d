"""Checkpoints that are whole or absent: written aside, synced, renamed; each with its size and SHA-256."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.contract import sha256_of, write_json
from recipes.room import full_disk

STATE, SIDECAR = "state.pt", "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint: its folder, the optimizer steps behind it, what was noted with it."""

    folder: Path
    step: int
    notes: dict[str, Any]

    @property
    def state(self) -> Path:
        """The torch file."""
        return self.folder / STATE


class Checkpoints:
    """The checkpoints of one run: `step-00000120/` to resume from and `best-00000080/`, weights alone."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".part-*"):  # a save that a kill cut short
            shutil.rmtree(part)

    def save(self, kind: str, step: int, write: Callable[[Path], None], notes: dict[str, Any]) -> Checkpoint:
        """Let `write` fill a file, then make it a checkpoint in one rename; prune what `keep` no longer wants.

        A crash at any moment leaves the checkpoints as they were, or with the new one; an error gives back the room
        that it took, and is a RecipeFailure (disk full) where there was too little.
        """
        part = self.folder / f".part-{kind}-{step:08d}"
        try:
            return self._save(part, kind, step, write, notes)
        except Exception as error:
            failure = full_disk(error, self.folder)
            shutil.rmtree(part, ignore_errors=True)
            raise failure or error from error

    def _save(
        self, part: Path, kind: str, step: int, write: Callable[[Path], None], notes: dict[str, Any]
    ) -> Checkpoint:
        name = f"{kind}-{step:08d}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        write(part / STATE)
        _sync(part / STATE)
        size, digest = (part / STATE).stat().st_size, sha256_of(part / STATE)
        write_json(part / SIDECAR, {"step": step, "bytes": size, "sha256": digest, "notes": notes})
        final = self.folder / name
        if final.exists():  # a resumed run comes by the same step again
            final.rename(self.folder / f".part-old-{name}")
        part.rename(final)
        _sync(self.folder)
        shutil.rmtree(self.folder / f".part-old-{name}", ignore_errors=True)
        self._prune(kind)
        return Checkpoint(final, step, notes)

    def newest(self, kind: str) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a line for each damaged one that was passed over."""
        passed_over: list[str] = []
        for folder in sorted(self.folder.glob(f"{kind}-*"), reverse=True):
            problem, found = _read(folder)
            if found is not None:
                return found, passed_over
            passed_over.append(f"checkpoint {folder.name} is not whole ({problem}): passed over")
        return None, passed_over

    def _prune(self, kind: str) -> None:
        keep = 1 if kind == "best" else self.keep
        for old in sorted(self.folder.glob(f"{kind}-*"))[:-keep]:
            gone = self.folder / f".part-old-{old.name}"  # renamed first: never a half-deleted checkpoint
            shutil.rmtree(gone, ignore_errors=True)
            old.rename(gone)
            shutil.rmtree(gone)


def _read(folder: Path) -> tuple[str, Checkpoint | None]:
    try:
        sidecar = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        step, size, digest = int(sidecar["step"]), int(sidecar["bytes"]), str(sidecar["sha256"])
        notes = dict(sidecar["notes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{SIDECAR}: {type(error).__name__}", None
    state = folder / STATE
    if not state.is_file() or state.stat().st_size != size:
        return f"{STATE} is missing or of another size", None
    if sha256_of(state) != digest:
        return f"{STATE} has another SHA-256", None
    return "", Checkpoint(folder, step, notes)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
