"""The journal of an import: which outputs are whole, so that a second run redoes only what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launcher.data.convert import Converted, Source
from launcher.errors import BadInputError

JOURNAL = ".import.jsonl"  # its presence marks a folder that `import` made
_VERSION = 1


class Journal:
    """OUT/.import.jsonl: which outputs are whole, and from what; one line each, written after the file is."""

    def __init__(self, out: Path, root: Path) -> None:
        self.out, self.root = out, root
        self.path = out / JOURNAL
        self._known: dict[str, dict[str, Any]] = {}
        self._fresh = not out.exists()
        for line in self._lines():
            if "source" in line and line["source"] != str(root):
                raise BadInputError(f"holds the import of {line['source']}.", fix="Choose another folder.",
                                    key="--out", file=out)  # fmt: skip
            if line.get("version", _VERSION) != _VERSION:
                raise BadInputError("was made by another version of import.", fix="Choose another folder.",
                                    key="--out", file=out)  # fmt: skip
            if "target" in line:
                self._known[line["target"]] = line

    def _lines(self) -> Iterable[dict[str, Any]]:
        if not self.path.exists():
            return
        for raw in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                line = json.loads(raw)
            except ValueError:  # the last line of a run that was killed while writing it
                continue
            if isinstance(line, dict):
                yield line

    def __enter__(self) -> Journal:
        self.out.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        self._file = self.path.open("a", encoding="utf-8")
        self._lock()
        for part in self.out.rglob(".*.part"):
            part.unlink(missing_ok=True)
        # The newline closes a line that a killed run left half-written.
        self._append({"version": _VERSION, "source": str(self.root)} if new else None)
        return self

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks; two imports at once only repeat work
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise BadInputError("another import is writing here.", key="--out", file=self.out) from error

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _append(self, line: dict[str, Any] | None) -> None:
        self._file.write((json.dumps(line, ensure_ascii=True) if line else "") + "\n")
        self._file.flush()

    def note(self, target: Path, fingerprint: str, made: Converted) -> None:
        """Record that `target` is whole."""
        source = made.source
        self._append({
            "target": str(target), "fingerprint": fingerprint, "frames": made.frames, "bytes": made.size_bytes,
            "peak": made.peak, "format": source.format, "rate_hz": source.rate_hz, "channels": source.channels,
        })  # fmt: skip

    def finished(self, target: Path, fingerprint: str) -> Converted | None:
        """What an earlier run made of this very recording, if the output is still whole."""
        known = self._known.get(str(target))
        try:
            if known is None or known["fingerprint"] != fingerprint or target.stat().st_size != known["bytes"]:
                return None
            source = Source(known["format"], known["rate_hz"], known["channels"])
            return Converted(known["frames"], known["bytes"], source, known["peak"])
        except (OSError, KeyError):
            return None

    def discard(self) -> None:
        """Leave no trace of an import that made nothing."""
        self._file.close()
        if self._known or (self.out / "manifest.jsonl").exists():
            return
        self.path.unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.out / "audio", topdown=False):
            Path(folder).rmdir()
        if self._fresh and not any(self.out.iterdir()):
            self.out.rmdir()
