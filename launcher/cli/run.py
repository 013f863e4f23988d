"""`launcher run JOB`: plan, confirm, execute, watch."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.command("run")
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--detach", is_flag=True, help="Start it and return at once; watch it with: launcher attach RUN.")
@common_options
def command(job: Path, detach: bool) -> int:
    """Plan JOB, confirm, execute; a second launch of the same live job finds the first."""
    from launcher.cli.follow_run import follow
    from launcher.cli.show_plan import show_plan
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.job import load_job
    from launcher.ledger import Ledger
    from launcher.workflow import plan_job, start

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    planned = plan_job(load_job(job), home, clock)
    ledger = Ledger.open(home, clock)
    show_plan(planned, ctx.out)
    run, new = start(planned, home, ledger, clock)
    if not new:
        ctx.out.say(f"This job is running already: run {run.run}")
    if detach:
        ctx.out.say(f"run {run.run} started; watch it with: launcher attach {run.run}")
        ctx.out.result({"run": run.run, "state": str(run.state), "exit": 0})
        return 0
    return follow(home, ledger, run.run, ctx.out, clock)
