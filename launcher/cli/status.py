"""`launcher status [RUN]`: runs, what they hold, and what they have cost."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli import common_options, context


@click.command("status")
@click.argument("run", required=False)
@common_options
def command(run: str | None) -> int:
    """List all runs, newest first, or one RUN with its leases."""
    from rich.table import Table

    from launcher.cli.pending import warn_of_pending
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.report.summary import summary
    from launcher.runner.control import is_running
    from launcher.sentinel.marks import is_guarded

    ctx = context()
    home = Home.find(ctx.home)
    ledger = Ledger.open(home)
    found = [ledger.run(run)] if run else ledger.runs()
    warn_of_pending(ledger, ctx.out)
    folders = {each.run: home.run_dir(each.run) for each in found}
    rows = [
        summary(each, ledger, alive=is_running(folders[each.run]), guarded=is_guarded(folders[each.run]))
        for each in found
    ]
    if not rows:
        ctx.out.say("no runs yet; begin with: launcher tune RECORDINGS")
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("run", "state", "began (UTC)", "leases", "spent", "ends by (UTC)"):
            table.add_column(name)
        for row in rows:
            leases = ", ".join(f"{lease['provider']} {lease['state']}" for lease in row["leases"]) or "none"
            table.add_row(
                row["run"], _state(row), _minute(row["created_at"]), leases, f"${row['spent_usd']}",
                "over" if row["over"] else _minute(row["deadline"]),
            )  # fmt: skip
        ctx.out.say(table)
    ctx.out.result({"runs": rows})
    return 0


def _state(row: dict[str, Any]) -> str:
    """A run's state, and who sees to it where its runner does not."""
    if row["guarded"] and not row["alive"]:
        said = "its sentinel goes on releasing" if row["over"] else "runner died: its sentinel takes over"
        return f"{row['state']} ({said})"
    if row["over"] or row["alive"]:
        return str(row["state"])
    return f"{row['state']} (runner died: launcher resume)"


def _minute(iso: str) -> str:
    """An ISO 8601 time to the minute, as it is read."""
    return iso[:16].replace("T", " ")
