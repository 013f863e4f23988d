"""The figures of constants.toml: value, source, and how to measure each again. Needs no torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("constants.toml")


@dataclass(frozen=True)
class Figure:
    """One number, where it comes from in words, and how to measure it again. Its unit is in its name."""

    value: float
    source: str
    remeasure: str


@cache
def figures() -> dict[str, Figure]:
    """Every figure by `section.name`."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        f"{section}.{name}": Figure(float(held["value"]), held["source"], held["remeasure"])
        for section, names in table.items()
        for name, held in names.items()
    }


def figure(name: str) -> float:
    """The value of `section.name`."""
    return figures()[name].value
