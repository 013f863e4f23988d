"""`launcher attach RUN`: watch a run again."""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("attach")
@click.argument("run")
@common_options
def command(run: str) -> int:
    """Watch RUN until it ends; leaving changes nothing."""
    from launcher.cli.follow_run import follow
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.workflow import finish

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    ledger = Ledger.open(home, clock)
    return follow(home, ledger, finish(home, ledger, ledger.run(run), clock).run, ctx.out, clock)
