"""`launcher budget`: what is left of each budget, and when its day and its month end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from launcher.cli.output import Output

WORDS = {"per_run_usd": "a run", "per_day_usd": "today", "per_month_usd": "this month"}
HEADS = ("", "cap", "charged", "reserved", "left", "until")
AMOUNTS = ("limit_usd", "charged_usd", "reserved_usd", "left_usd")


@click.command("budget")
@common_options
def command() -> int:
    """Show every budget of budgets.yaml: its caps, what was charged, what open runs hold, what is left."""
    from pathlib import Path

    from launcher.budgets import find_budgets, load_budgets
    from launcher.cli.pending import warn_of_pending
    from launcher.clock import SystemClock
    from launcher.home import Home

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    file = find_budgets(Path.cwd(), home.root)
    budgets = load_budgets(file)
    ledger = None
    if home.has_ledger:  # a look at the budgets of a new machine creates nothing
        from launcher.ledger import Ledger

        ledger = Ledger.open(home, clock)
        warn_of_pending(ledger, ctx.out)
    from launcher.report.money import budget_facts, unnamed

    found = budget_facts(budgets, ledger, clock)
    for facts in found:
        _show(facts, ctx.out)
    others = unnamed(budgets, ledger) if ledger else {}
    for name, amount in others.items():
        ctx.out.say(f"also reserved, under a budget that is not in this file: {name} ${amount}", style="yellow")
    source = f"From {file}" if file else "No budgets.yaml here: these are the built-in caps (launcher init)"
    ctx.out.say(source, "dim")
    ctx.out.result({
        "budgets": found, "file": str(file) if file else None,
        "other_reserved_usd": {name: str(amount) for name, amount in others.items()},
    })  # fmt: skip
    return 0


def _show(facts: dict[str, Any], out: Output) -> None:
    from rich.table import Table
    from rich.text import Text

    from launcher.report.money import dollars

    name = Text(str(facts["budget"]), style="bold")
    name.append(f"{'  the default' if facts['default'] else ''}  time zone {facts['time_zone']}", style="dim")
    out.say(name)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("", "until") else "right", no_wrap=True)
    columns = [dollars(cap[amount] for cap in facts["caps"]) for amount in AMOUNTS]
    ends = {"per_day_usd": facts["day"]["ends"], "per_month_usd": facts["month"]["ends"]}
    for cap, limit, charged, reserved, left in zip(facts["caps"], *columns, strict=True):
        until = ends.get(cap["cap"])
        of_period = (charged, reserved) if until else ("", "")  # a run that is yet to come has neither
        when = _local(until, facts["time_zone"]) if until else ""
        table.add_row(f"  {WORDS[cap['cap']]}", limit, *of_period, Text(left, style="bold"), when)
    runs = facts["concurrent_runs"]
    free = max(0, runs["limit"] - runs["now"])
    table.add_row("  paid runs at once", str(runs["limit"]), "", str(runs["now"]), str(free), "")
    out.say(table)


def _local(iso: str, time_zone: str) -> str:
    from zoneinfo import ZoneInfo

    from launcher.clock import parse_iso

    local = parse_iso(iso).astimezone(ZoneInfo(time_zone))
    return f"{local.day} {local:%b %H:%M}"
