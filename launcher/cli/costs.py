"""`launcher costs`: what was spent, expected against charged, by day, recipe or provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from launcher.report.money import By


@click.command("costs")
@click.option("--by", type=click.Choice(["day", "recipe", "provider"]), default="day", show_default=True,
              help="What makes a row; a run's day is that of its last charge.")  # fmt: skip
@common_options
def command(by: By) -> int:
    """Show what runs were expected to cost, what was reserved for them, and what was charged (USD)."""
    from pathlib import Path

    from rich.table import Table

    from launcher.budgets import find_budgets, load_budgets
    from launcher.cli.pending import warn_of_pending
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.report.money import MONEY, cost_rows, dollars, total

    ctx = context()
    home = Home.find(ctx.home)
    time_zone = load_budgets(find_budgets(Path.cwd(), home.root)).time_zone
    rows = []
    if home.has_ledger:
        ledger = Ledger.open(home)
        warn_of_pending(ledger, ctx.out)
        rows = cost_rows(ledger, by, time_zone)
    whole = total("total", rows)
    if not rows:
        ctx.out.say("no runs yet, and nothing spent")
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        key = f"day ({time_zone})" if by == "day" else by
        for head in (key, "runs", "expected", "at most", "charged", "held now"):
            table.add_column(head, justify="right" if table.columns else "left", no_wrap=bool(table.columns))
        shown = [*rows, whole] if len(rows) > 1 else rows
        columns = [dollars(str(getattr(row, name)) for row in shown) for name in MONEY]
        for row, *amounts in zip(shown, *columns, strict=True):
            table.add_row(row.key, str(row.runs), *amounts, style="bold" if row is whole else None)
        ctx.out.say(table)
    ctx.out.result({"by": by, "time_zone": time_zone, "rows": [row.as_json() for row in rows],
                    "total": whole.as_json()})  # fmt: skip
    return 0
