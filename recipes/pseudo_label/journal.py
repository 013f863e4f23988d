"""What is labelled stays labelled: one line a clip, on disk before the next batch begins, read when started again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipes.pseudo_label.heard import Heard

JOURNAL = "journal.jsonl"


class Journal:
    """OUT/journal.jsonl: a first line that says by whom and how, then {"key", and a Heard's fields} a clip."""

    def __init__(self, out: Path, head: dict[str, Any]) -> None:
        """Take up the journal in OUT where it is of the same teacher and settings, else begin it anew."""
        self._path = out / JOURNAL
        self.heard: dict[str, Heard] = {}
        self.of_another = False  # there was one of another teacher or other settings, which is given up
        lines = self._lines()
        if lines and lines[0] == {"head": head}:
            for line in lines[1:]:
                key = str(line.pop("key"))
                self.heard[key] = Heard(**line)
            self._write(lines=[], mode="ab", torn=True)
        else:
            self.of_another = bool(lines)
            self._write([{"head": head}], mode="wb")

    def add(self, heard: Iterable[tuple[str, Heard]]) -> None:
        """Keep what was heard: on disk when this returns."""
        found = list(heard)
        self._write([{"key": key, **one.as_json()} for key, one in found])
        self.heard.update(found)

    def _lines(self) -> list[dict[str, Any]]:
        """Every whole line; one that a kill or a full disk tore is left out."""
        lines = []
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        for line in raw.split(b"\n"):
            try:
                held = json.loads(line)
            except ValueError:
                continue
            if isinstance(held, dict):
                lines.append(held)
        return lines

    def _write(self, lines: list[dict[str, Any]], mode: str = "ab", *, torn: bool = False) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with self._path.open(mode) as file:
            file.write(b"\n" * torn + text.encode("utf-8"))  # a torn line ends here, not in the next one
            file.flush()
            os.fsync(file.fileno())
