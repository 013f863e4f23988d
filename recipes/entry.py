"""The one way into a recipe: `python -m recipes.<name> SPEC.json OUT/`, its spec checked, its ending a code."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from recipes.contract import COMPLETE, EventLog, RecipeExit, RecipeFailure
from recipes.room import full_disk

Spec = TypeVar("Spec", bound=BaseModel)


def load_spec(path: Path, kind: type[Spec]) -> Spec:
    """The spec in a JSON file. RecipeFailure (bad input) names the file, the key, the value and the fix."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"{path}: not a readable JSON file: {error}") from error
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        faults = [f"{path}  {_fault(fault, kind)}" for fault in error.errors()]
        raise RecipeFailure(RecipeExit.BAD_INPUT, "\n".join(faults)) from error


def _fault(fault: Any, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "(whole file)"
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, list(kind.model_fields), n=1, cutoff=0.6)
        return f"{key}: no such setting." + (f" Did you mean {close[0]}?" if close else "")
    if fault["type"] == "missing":
        return f"{key}: missing."
    return f"{key}: {fault['msg']} (it is {fault['input']!r:.80})"


def main(kind: type[Spec], work: Callable[[Spec, Path, EventLog], None], argv: Sequence[str] | None = None) -> int:
    """Run `work(spec, out, events)`; returns the contract's exit code, its reason on stderr and in the events.

    An older COMPLETE.json in OUT goes first: a run that fails must not look like the one before it.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if len(args) != 2:
        print("usage: python -m recipes.<name> SPEC.json OUT/", file=sys.stderr)  # noqa: T201
        return int(RecipeExit.BAD_INPUT)
    out = Path(args[1])
    events: EventLog | None = None
    try:
        spec = load_spec(Path(args[0]), kind)
        events = EventLog(out)
        (out / COMPLETE).unlink(missing_ok=True)
        work(spec, out, events)
    except Exception as error:
        ending = error if isinstance(error, RecipeFailure) else full_disk(error, out)
        if ending is None:
            raise
        print(ending.message, file=sys.stderr)  # noqa: T201
        if events is not None:
            with suppress(OSError):  # a full disk
                events.emit("failure", code=int(ending.code), message=ending.message)
        return int(ending.code)
    return int(RecipeExit.DONE)
