"""`launcher plan JOB`: chooses where to run; spends nothing."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.command("plan")
@click.argument("job", type=click.Path(path_type=Path))
@common_options
def command(job: Path) -> int:
    """Choose where to run JOB and show what it takes; nothing is rented and nothing is spent."""
    from launcher.cli.show_plan import show_plan
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.job import load_job
    from launcher.workflow import plan_job

    ctx = context()
    planned = plan_job(load_job(job), Home.find(ctx.home), SystemClock())
    show_plan(planned, ctx.out)
    ctx.out.result(planned.plan.as_json(planned.budget))
    return 0
