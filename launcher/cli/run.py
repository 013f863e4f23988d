"""`launcher run JOB`: plan, confirm, execute, watch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli import common_options, context
from launcher.cli.plan_options import choice_options, consent_of, consent_options, wishes_of


@click.command("run")
@click.argument("job", type=click.Path(path_type=Path))
@choice_options
@consent_options
@click.option("--detach", is_flag=True, help="Start it and return at once; watch it with: launcher attach RUN.")
@common_options
def command(job: Path, detach: bool, **given: Any) -> int:
    """Plan JOB, confirm, execute; a second launch of the same live job finds the first."""
    from launcher.cli.follow_run import follow, launch
    from launcher.cli.unheard import go_on_unheard
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.job import load_job
    from launcher.workflow import plan_job

    ctx, clock = context(), SystemClock()
    go_on_unheard()
    home, wishes, consent = Home.find(ctx.home), wishes_of(given), consent_of(given)
    planned = plan_job(load_job(job), home, clock, wishes)
    ledger, run = launch(planned, consent, home, clock, ctx.out)
    if detach:
        ctx.out.say(f"run {run.run} goes on without this terminal; watch it with: launcher attach {run.run}")
        ctx.out.result({"run": run.run, "state": str(run.state), "exit": 0})
        return 0
    return follow(home, ledger, run.run, ctx.out, clock)
