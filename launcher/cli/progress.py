"""One progress bar for the verbs that walk over many things; nothing without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.cli.output import Output


@contextmanager
def bar(out: Output, doing: str, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback (done, total) that draws a bar on the terminal, or None where nobody would see it."""
    if out.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn(),
    )  # fmt: skip
    # On the console that the verb speaks on, or what it says meanwhile lands in the middle of the bar.
    console = out.console if out.console.is_terminal else Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
