"""`launcher tune PATH`: the whole story, from a folder of recordings to a better model and a receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli import common_options, context
from launcher.cli.plan_options import choice_options, consent_of, consent_options, wishes_of


@click.command("tune")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--general",
    type=click.Path(path_type=Path),
    help="Everyday speech it must not forget: a manifest, or recordings with transcripts.",
)
@click.option("--base", help="The model to start from: a .nemo file or a pretrained name.")
@click.option("--transcripts", type=click.Path(path_type=Path), help="Which file holds the transcripts.")
@click.option("--out", type=click.Path(path_type=Path), help="Where manifest, audio and job.yaml go.")
@click.option("--priority", metavar="A,B", default="", help="Entity categories that matter most.")
@click.option("--group-by", default="auto", show_default=True, help="Row field whose groups never straddle, or none.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the recipe (repeatable).")
@click.option("--cycle", type=click.IntRange(min=1), default=1, show_default=True, help="Which round this is.")
@click.option("--gate/--no-gate", "strict", default=False, help="Stop (exit 7) when the gate says not to tune.")
@click.option("--budget", help="A name in budgets.yaml.")
@choice_options
@consent_options
@common_options
def command(path: Path, general: Path | None, base: str | None, transcripts: Path | None, out: Path | None,  # noqa: PLR0917
            priority: str, group_by: str, settings: tuple[str, ...], cycle: int, strict: bool,
            budget: str | None, **given: Any) -> int:  # fmt: skip
    """Import PATH, measure the base model, plan, fine-tune, measure again, and write a receipt."""
    from launcher.cli.follow_run import follow, launch
    from launcher.cli.unheard import go_on_unheard
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.tune import Wishes, measure_baseline, prepare_job
    from launcher.workflow import plan_job

    ctx, clock = context(), SystemClock()
    go_on_unheard()
    home = Home.find(ctx.home)
    wishes = Wishes(
        recordings=path, general=general, base=base, transcripts=transcripts, out=out, group_by=group_by,
        priority=tuple(name.strip() for name in priority.split(",") if name.strip()),
        settings=settings, cycle=cycle, strict_gate=strict, budget=budget,
    )  # fmt: skip
    choosing, consent = wishes_of(given), consent_of(given)
    job = prepare_job(wishes, home, ctx.out)
    planned = plan_job(job, home, clock, choosing)
    measure_baseline(planned, home, ctx.out, clock)
    choices = planned.plan.as_json()["choices"]
    ledger, run = launch(planned, consent, home, clock, ctx.out)
    extra = {"choices": [choice for choice in choices.values() if choice is not None]}
    return follow(home, ledger, run.run, ctx.out, clock, extra=extra)
