"""`launcher report RUN`: where the report, leaderboards and receipt are."""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("report")
@click.argument("run")
@click.option("--open", "show", is_flag=True, help="Open report.html in the browser.")
@common_options
def command(run: str, show: bool) -> int:
    """Print RUN's receipt and where its report is."""
    from launcher.cli.pending import warn_of_pending
    from launcher.clock import SystemClock
    from launcher.errors import BadInputError
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.report.receipt import show_receipt
    from launcher.workflow import finish

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    ledger = Ledger.open(home, clock)
    warn_of_pending(ledger, ctx.out)
    found = finish(home, ledger, ledger.run(run), clock)
    if found.outcome is None:
        raise BadInputError(
            f"run {found.run} is not over ({found.state}).", key="RUN", value=run,
            fix=f"Watch it with: launcher attach {found.run}",
        )  # fmt: skip
    show_receipt(found.outcome, ctx.out)
    if show and found.outcome.get("report"):
        click.launch(found.outcome["report"])
    kept = ("run", "report", "receipt", "leaderboards")
    ctx.out.result({name: found.outcome.get(name) for name in kept})
    return 0
