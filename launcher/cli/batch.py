"""`launcher batch FILE`: many jobs under one budget and one approval; asked again, it goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli import common_options, context
from launcher.cli.plan_options import consent_of, consent_options


@click.command("batch")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--offers", type=click.Path(path_type=Path), metavar="FILE",
              help="Prices from a file (JSON or CSV) instead of asking the providers.")
@consent_options
@common_options
def command(file: Path, offers: Path | None, **given: Any) -> int:
    """Plan every job of FILE, take one YES for all, run as many at once as the budget allows.

    The amount approved binds the whole batch, midnight or not. Asked again with the same FILE, it goes on where
    it was, without another YES. The exit code is the worst that happened: 6 something may still bill, 5 a recipe
    failed, 2 bad input, 130 stopped by hand, 4 refused or still waiting, 8 stopped at a limit, 7 a gate said no, 0.
    """
    from launcher.batch.whole import run_batch
    from launcher.cli.unheard import go_on_unheard
    from launcher.clock import SystemClock
    from launcher.home import Home
    from launcher.plan import Wishes

    ctx = context()
    go_on_unheard()
    home = Home.find(ctx.home)
    return run_batch(file, home, SystemClock(), Wishes(offers=offers), consent_of(given), ctx.out)
