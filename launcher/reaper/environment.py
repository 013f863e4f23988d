"""What a reaper that nobody started by hand is told: keys from a private file, and who is known to be dead."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import BadInputError
from launcher.ledger import slug
from launcher.reaper.labels import Over

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)")
_RUN = re.compile(r"[0-9a-f]{6}")


def read_environment(file: Path) -> None:
    """Set what a file of NAME=VALUE lines says and the environment does not; a file that is not there says nothing.

    Raises BadInputError for one that others may read, or for a line that is none. No value is ever shown.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise BadInputError("others may read it, and it may hold keys.", file=file, fix=f"chmod 600 {file}")
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        raise BadInputError("cannot be read.", file=file, fix="Make it a text file of your own.") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise BadInputError("is not NAME=VALUE.", file=file, line=number, fix="One name and its value a line.")
        os.environ.setdefault(found["name"], _bare(found["value"].strip()))


def over_of(runs: Sequence[str], owners: Sequence[str]) -> Over:
    """The runs and owners that are known to be over; raises BadInputError for what could name more than was meant."""
    for run in runs:
        if not _RUN.fullmatch(run):
            raise BadInputError("is no run.", key="--run", value=run, fix="Six letters, as launcher status says it.")
    for owner in owners:
        if not owner or slug(owner) != owner:
            raise BadInputError(
                "is no owner as labels tell it.", key="--owner", value=owner,
                fix="The part of a label between pl- and the run; in CI what LAUNCHER_OWNER was.",
            )  # fmt: skip
    return Over(frozenset(runs), frozenset(owners))


def _bare(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
