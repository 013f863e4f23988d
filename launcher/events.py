"""Events from a machine that is not ours: only fields of the kind that the contract names are taken over.

Whoever reads them later (the viewer, the forecast, the measurement of speed, the keeper of checkpoints) may then rely
on numbers being numbers of a sensible size, and texts being texts.
"""

from __future__ import annotations

import math
from typing import Any

#: What a recipe may say (recipes/contract.py). Anything else is the runner's own to say, such as what was released.
KINDS = ("phase", "progress", "throughput", "warning", "note", "trim", "stage", "checkpoint", "failure")
MOST_CHARACTERS = 4_000  # of a text; a recipe's own are lines
MOST_FIELDS = 64
_COUNTS = ("step", "total", "total_before", "averaged_steps", "bytes", "code")
_NUMBERS = ("loss", "seconds_per_step", "audio_seconds_per_second", "epoch")
_TEXTS = ("kind", "t", "name", "message")


def sound(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what the contract does not allow: a known field of the wrong kind is left out."""
    kept: dict[str, Any] = {}
    for name, value in list(event.items())[:MOST_FIELDS]:
        if name in _COUNTS:
            good: Any = value if type(value) is int and 0 <= value < 1 << 53 else None
        elif name in _NUMBERS:
            good = _number(value)
        elif name in _TEXTS:
            good = value[:MOST_CHARACTERS] if isinstance(value, str) else None
        elif name == "metrics":
            good = _metrics(value)
        else:
            good = _other(value)
        if good is not None or value is None:
            kept[name[:100]] = good
    if kept.get("kind") not in KINDS:
        kept["kind"] = "note"
    return kept


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        held = float(value)
    except OverflowError:
        return None
    return held if math.isfinite(held) and abs(held) < 1e15 else None


def _metrics(value: Any) -> dict[str, float | None]:
    if not isinstance(value, dict):
        return {}
    return {str(name)[:100]: _number(held) for name, held in list(value.items())[:MOST_FIELDS]}


def _other(value: Any, depth: int = 0) -> Any:
    """A field that the contract does not name: kept for who reads the log, bounded in size."""
    if isinstance(value, str):
        return value[:MOST_CHARACTERS]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if depth < 3 and isinstance(value, list):
        return [_other(held, depth + 1) for held in value[:MOST_FIELDS]]
    if depth < 3 and isinstance(value, dict):
        return {str(name)[:100]: _other(held, depth + 1) for name, held in list(value.items())[:MOST_FIELDS]}
    return None
