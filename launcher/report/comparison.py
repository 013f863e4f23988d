"""A model beside another system on the same rows, as a table for a terminal: comparison.json in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from launcher.report.leaderboard import headline_rows, rate_text

if TYPE_CHECKING:
    from rich.table import Table

_PAIRED = {"Keywords missed (KER)": "ker", "WER, micro": "wer", "CER, micro": "cer"}


def comparison_table(
    score: Mapping[str, Any], other: Mapping[str, Any], comparison: Mapping[str, Any], model: str
) -> Table:
    """Both systems' rates with their intervals, and where the rows are paired the difference with its own."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    paired = comparison.get("paired") or {}
    title = f"{model} against {comparison['against']}"
    table = Table(title=Text(title), box=SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.caption = Text(verdict(comparison))
    table.add_column("")
    for name in ("against", "model", "difference [95%]", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    others = dict(headline_rows(other))
    for name, leaf in headline_rows(score):
        test = paired.get(_PAIRED.get(name, "")) or {}
        p = test.get("p_value")
        shown = "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
        table.add_row(Text(name), *map(Text, (rate_text(others.get(name)), rate_text(leaf), _points(test), shown)))
    return table


def verdict(comparison: Mapping[str, Any]) -> str:
    """The difference in a sentence, and on how many rows which of the two is better."""
    test = (comparison.get("paired") or {}).get("wer")
    counts = (
        f"Word errors by row: fewer on {comparison['better']}, more on {comparison['worse']}, "
        f"as many on {comparison['same']}."
    )
    if not test or not test.get("ci95"):
        return counts
    low, high = test["ci95"]
    clear = "the model is better" if high < 0 else "the other is better" if low > 0 else "it may be chance"
    return f"WER: {_points(test)} points, model minus other: {clear}. {counts}"


def _points(test: Mapping[str, Any]) -> str:
    """A difference of rates in points of a hundred, with its interval."""
    if not test:
        return ""
    interval = test.get("ci95")
    shown = f" [{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}]" if interval else ""
    return f"{100 * test['delta']:+.1f}{shown}"
