"""`launcher resume RUN`: goes on from the journal; never rents twice."""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("resume")
@click.argument("run")
@click.option("--detach", is_flag=True, help="Start it and return at once.")
@common_options
def command(run: str, detach: bool) -> int:
    """Go on with RUN where its journal says it was; a run that is over says how it ended."""
    from launcher.cli.follow_run import follow
    from launcher.cli.unheard import go_on_unheard
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.reaper.behind import reap_behind
    from launcher.workflow import begin, is_finished

    ctx, clock = context(), SystemClock()
    go_on_unheard()
    home = Home.find(ctx.home)
    ledger = Ledger.open(home, clock)
    found = ledger.run(run)
    if is_finished(found):
        ctx.out.say(f"run {found.run} is over: {found.state}{f' ({found.reason})' if found.reason else ''}")
    else:
        begin(home, ledger, found, clock)
    reap_behind(home, ledger)
    if detach:
        ctx.out.result({"run": found.run, "state": str(ledger.run(found.run).state), "exit": 0})
        return 0
    return follow(home, ledger, found.run, ctx.out, clock)
