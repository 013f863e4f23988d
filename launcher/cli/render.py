"""`launcher render JOB`: the SkyPilot task that the plan would use, as YAML on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli import common_options, context
from launcher.cli.plan_options import choice_options, wishes_of


@click.command("render")
@click.argument("job", type=click.Path(path_type=Path))
@choice_options
@common_options
def command(job: Path, **given: Any) -> int:
    """Print the SkyPilot task that JOB would be rented with; nothing is rented and nothing is spent."""
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.job import load_job
    from launcher.remote import task_of, yaml_of
    from launcher.workflow import plan_job

    ctx = context()
    planned = plan_job(load_job(job), Home.find(ctx.home), SystemClock(), wishes_of(given))
    plan = planned.plan
    task = task_of(plan)
    offer = plan.choice.offer
    head = (
        f"# {plan.recipe} on {offer.count} x {offer.gpu} at {offer.provider}, ${offer.usd_per_hour} an hour on "
        f"{offer.as_of or 'an unknown day'}: at most ${plan.ceiling_usd} and {plan.deadline_h:.2f} h.\n"
        f"# Plan {plan.digest}. `launcher run` checks the price again and proves the release;\n"
        "# `sky launch` of this file does neither, and takes ./job (spec.json, manifests, audio) along.\n"
    )
    text = head + yaml_of(task)
    if not ctx.out.json_mode:
        click.echo(text, nl=False)  # the answer itself: with -q, too
    ctx.out.result({"task": task, "yaml": text})
    return 0
