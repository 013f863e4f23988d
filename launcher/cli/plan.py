"""`launcher plan JOB`: chooses where to run; spends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli import common_options, context
from launcher.cli.plan_options import choice_options, wishes_of


@click.command("plan")
@click.argument("job", type=click.Path(path_type=Path))
@choice_options
@click.option("--all", "every", is_flag=True, help="Show every candidate that fits, not only the choices.")
@common_options
def command(job: Path, every: bool, **given: Any) -> int:
    """Choose where to run JOB and show what it takes; nothing is rented and nothing is spent."""
    from launcher.cli.pending import warn_of_pending
    from launcher.cli.show_plan import show_plan
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.job import load_job
    from launcher.workflow import plan_job

    ctx = context()
    home, clock = Home.find(ctx.home), SystemClock()
    planned = plan_job(load_job(job), home, clock, wishes_of(given))
    if home.has_ledger:
        from launcher.ledger import Ledger

        warn_of_pending(Ledger.open(home, clock), ctx.out)
    show_plan(planned, ctx.out, every)
    ctx.out.result(planned.plan.as_json())
    return 0
