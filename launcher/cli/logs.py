"""`launcher logs RUN [-f]`: what a run said."""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("logs")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@common_options
def command(run: str, follow: bool) -> int:
    """Print RUN's events, one line each."""
    import json

    from launcher.cli.pending import warn_of_pending
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.runner.control import is_running
    from recipes.contract import EVENTS, read_events

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    ledger = Ledger.open(home, clock)
    warn_of_pending(ledger, ctx.out)
    run_id = ledger.run(run).run
    run_dir = home.run_dir(run_id)
    events, offset = [], 0
    while True:
        alive = is_running(run_dir)
        for after, event in read_events(run_dir / EVENTS, offset):
            offset = after
            events.append(event)
            fields = {k: v for k, v in event.items() if k not in ("t", "kind", "step", "src", "at")}
            words = " ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in fields.items())
            ctx.out.line(f"{event.get('t', '')} {event.get('step', '')} {event.get('kind', '')} {words}")
        if not (follow and alive):
            break
        clock.sleep(0.3)
    ctx.out.result({"run": run_id, "events": events})
    return 0
