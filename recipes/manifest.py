"""NeMo manifests and hypothesis files: one JSON object a line; errors name the file and line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recipes.contract import write_atomic

Row = dict[str, Any]


class ManifestError(ValueError):
    """A fault in a file of rows: which file, which line (counted from 1), what is wrong, and the fix."""

    def __init__(
        self,
        file: object,
        line: int | None,
        problem: str,
        *,
        key: str = "",
        value: object = None,
        fix: str = "",
    ) -> None:
        self.file, self.line, self.problem = str(file), line, problem
        self.key, self.value, self.fix = key, value, fix
        where = self.file if line is None else f"{self.file}:{line}"
        super().__init__(f"{where}{'  ' + key if key else ''}: {problem}{' ' + fix if fix else ''}")


def read_rows(path: str | Path) -> list[tuple[int, Row]]:
    """Every row with its line number (from 1). Blank lines, a BOM and CRLF endings are read over.

    Raises ManifestError for a file that cannot be read, bad UTF-8, broken JSON, NaN or Infinity, a lone
    surrogate (it could never be written out again), or a line that is not an object.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ManifestError(path, None, f"cannot be read: {error.strerror or error}.") from None
    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            raise ManifestError(path, number, f"not UTF-8 at byte {error.start} of the line.") from None
        except json.JSONDecodeError as error:
            raise ManifestError(path, number, f"not JSON: {error.msg} at column {error.colno}.") from None
        except (ValueError, RecursionError) as error:
            raise ManifestError(path, number, f"not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise ManifestError(path, number, f"expected one JSON object a line, found {type(row).__name__}.")
        if b"\\u" in line and not _encodable(row):
            raise ManifestError(path, number, "half a surrogate pair: this text is not valid Unicode.")
        rows.append((number, row))
    return rows


def read_manifest(path: str | Path) -> list[Row]:
    """The rows of a manifest as dicts, in file order. Raises ManifestError, as `read_rows` does."""
    return [row for _, row in read_rows(path)]


def write_manifest(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows, one JSON object a line, atomically: a reader sees the old whole file or the new one.

    Raises ManifestError for a duration that is null, not a number or not finite (Lhotse drops such rows
    without a word), and for a value JSON cannot hold.
    """
    lines = []
    for number, row in enumerate(rows, 1):
        if "duration" in row and not _is_duration(row["duration"]):
            raise ManifestError(
                path, number, "a duration is a number of seconds.", key="duration", value=row["duration"]
            )
        try:
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ManifestError(path, number, f"cannot be written as JSON: {error}.") from None
    write_atomic(Path(path), "".join(line + "\n" for line in lines), as_it_is=True)


def text_of(row: Mapping[str, Any], key: str, file: object, line: int | None) -> str:
    """The string under `key` of a row; raises ManifestError when it is missing, null or not text."""
    value = row.get(key)
    if isinstance(value, str):
        return value
    problem = "missing." if key not in row else f"expected text, found {json.dumps(value)[:80]}."
    raise ManifestError(file, line, problem, key=key, value=value)


def _is_duration(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _encodable(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
