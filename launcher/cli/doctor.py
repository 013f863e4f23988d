"""`launcher doctor`: what works here, and the fix for what does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.doctor import Check


@click.command(short_help="What works here, and the fix for what does not.")
@click.option("--deep", is_flag=True, help="Also start torch and NeMo for real (tens of seconds).")
@click.option("--fix", is_flag=True, help="Build the recipe environment (torch, NeMo) if it is not current.")
@common_options
def command(deep: bool, fix: bool) -> int:
    """What works here: GPU, environments, credentials, engines, clock, disk; each failure with its fix.

    Exits 0 when everything that a run on this machine needs is there, else 2. Keys are looked for, never read.
    """
    from launcher.doctor import examine, works
    from launcher.home import Home

    verb = context()
    if fix:
        _build()
    checks = examine(Home.find(verb.home), deep)
    ok = works(checks)
    verb.out.say(_table(checks))
    if verb.out.quiet:
        for check in checks:
            if check.needed and not check.ok:
                verb.out.warn(f"{check.name}: {check.detail}. {check.fix}")
    verb.out.say("Ready: runs on this machine will work." if ok else "Not ready: mend what is marked ✗.")
    verb.out.result({"ok": ok, "checks": [check.as_json() for check in checks]})
    return 0 if ok else 2


def _build() -> None:
    import os

    from launcher import envbuild
    from launcher.doctor import check_recipe_environment
    from launcher.environment import OVERRIDE, recipe_environment

    if os.environ.get(OVERRIDE):
        context().out.warn(f"{OVERRIDE} is set: recipes run there, so there is nothing to build")
        return
    environment = recipe_environment()
    if environment.state == "ready" and not check_recipe_environment(deep=False)[0].ok:
        environment.python.unlink()  # stamped, yet broken: build it from nothing
    envbuild.build([environment], show=None if context().out.quiet else _tell)


def _tell(text: str) -> None:
    import sys

    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _table(checks: Sequence[Check]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, style = ("✓", "green") if check.ok else ("✗", "red") if check.needed else ("–", "yellow")
        said = Text(check.detail)
        if check.fix:
            said.append(f"\n→ {check.fix}", style="bold" if check.needed else "")
        table.add_row(Text(mark, style=style), check.name, said)
    return table
