"""`launcher stop RUN`: collect what there is, then release; `--now` releases first."""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("stop")
@click.argument("run")
@click.option("--now", is_flag=True, help="Release first; only what was mirrored is kept.")
@common_options
def command(run: str, now: bool) -> int:
    """Stop RUN: keep the best model so far, then release (works on a run whose runner died, too)."""
    from launcher.cli.follow_run import follow
    from launcher.cli.unheard import go_on_unheard
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.runner.control import ask_to_stop
    from launcher.workflow import begin, is_finished

    ctx, clock = context(), SystemClock()
    go_on_unheard()
    home = Home.find(ctx.home)
    ledger = Ledger.open(home, clock)
    found = ledger.run(run)
    if is_finished(found):
        ctx.out.say(f"run {found.run} is over already: {found.state}")
    else:
        ask_to_stop(home.run_dir(found.run), "now" if now else "collect")
        begin(home, ledger, found, clock)
    return follow(home, ledger, found.run, ctx.out, clock)
