"""Choose what to hold out: a share of each category, without taking units apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Unit:
    """Rows that must stay together. `draw` orders units at random, by seed; `categories` counts their rows."""

    draw: tuple[str, str]
    rows: tuple[int, ...]
    categories: Counter[str]

    @property
    def main_category(self) -> str:
        """The category of most of its rows (the first by name, on a tie)."""
        return min(self.categories, key=lambda name: (-self.categories[name], name))


def choose_by_category(units: Sequence[Unit], fraction: Fraction) -> list[Unit]:
    """For each category with two units or more, units in drawn order up to max(1, floor(fraction × rows)) rows."""
    by_category: dict[str, list[Unit]] = defaultdict(list)
    for unit in sorted(units, key=lambda unit: unit.draw):
        by_category[unit.main_category].append(unit)
    chosen: list[Unit] = []
    for _, members in sorted(by_category.items()):
        if len(members) < 2:
            continue
        target = max(1, int(fraction * sum(len(unit.rows) for unit in members)))
        taken: list[Unit] = []
        count = 0
        for unit in members:
            if count + len(unit.rows) <= target and len(taken) < len(members) - 1:
                taken.append(unit)
                count += len(unit.rows)
        chosen += taken or [min(members, key=lambda unit: len(unit.rows))]
    return chosen


def choose_groups(units: Sequence[Unit], fraction: Fraction) -> list[Unit]:
    """Groups to hold out so that every category, and the whole, comes as near to `fraction` as groups allow.

    Greedy from nothing, then exchanges, on the cost  Σ_c (v_c − t_c)² / t_c  over the categories and the total,
    with v the rows held out and t = fraction × rows, plus a charge for each category (of two rows or more) that is
    missing on either side. At least one group is held out and at least one is left.
    """
    import numpy as np

    ordered = sorted(units, key=lambda unit: unit.draw)
    names = sorted({name for unit in ordered for name in unit.categories})
    table = np.array([[*(unit.categories[name] for name in names), len(unit.rows)] for unit in ordered], float)
    totals = table.sum(axis=0)
    targets = float(fraction) * totals
    guarded = (totals >= 2) & (np.count_nonzero(table, axis=0) >= 2)
    missing_charge = 4.0 * float(np.square(targets).max() / targets.max() + 1.0)

    def cost(held: Floats) -> Floats:
        """Cost of each row of `held`, the (candidates, categories + 1) counts of held-out rows."""
        spread = (np.square(held - targets) / targets).sum(axis=-1)
        lacking = ((held <= 0) | (held >= totals)) & guarded
        result: Floats = spread + missing_charge * lacking.sum(axis=-1)
        return result

    inside = np.zeros(len(ordered), bool)
    held = np.zeros(len(totals))
    best = np.inf  # the first group always improves on nothing held out
    while inside.sum() < len(ordered) - 1:
        costs = cost(held + table)
        costs[inside] = np.inf
        at = int(costs.argmin())
        if costs[at] >= best - 1e-9:
            break
        inside[at], held, best = True, held + table[at], costs[at]
    for _ in range(100):  # each exchange lowers the cost; a bound keeps thousands of groups quick
        swap = _best_exchange(table, inside, held, cost, best)
        if swap is None:
            break
        out, into, best = swap
        inside[out], inside[into] = False, True
        held = held - table[out] + table[into]
    return [unit for unit, taken in zip(ordered, inside, strict=True) if taken]


def _best_exchange(
    table: Floats, inside: NDArray[np.bool_], held: Floats, cost: Callable[[Floats], Floats], best: float
) -> tuple[int, int, float] | None:
    """The exchange of a held-out group for another that lowers the cost most, or None."""
    import numpy as np

    others = np.flatnonzero(~inside)
    found: tuple[int, int, float] | None = None
    for out in np.flatnonzero(inside)[:200]:
        costs = cost(held - table[out] + table[others])
        at = int(costs.argmin())
        if costs[at] < best - 1e-9:
            best = float(costs[at])
            found = int(out), int(others[at]), best
    return found
