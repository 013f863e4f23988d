"""`launcher manifest`: check a manifest, or split it into training and validation rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from launcher.cli.output import Output
    from launcher.data import CheckResult


@click.group("manifest")
@common_options
def command() -> None:
    """Check or split a manifest."""


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--max-duration", type=float, metavar="S", help="Say how much audio lies in rows longer than S seconds."
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="A .nemo, tokenizer.model or vocab.txt: texts it cannot write are errors.",
)
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Findings to print.")
@common_options
def check(file: Path, max_duration: float | None, tokenizer: Path | None, limit: int) -> int:
    """Find every fault of a manifest, by line and field.

    Ends with 2 when there are errors, with 0 when there are only warnings. Relative paths are those of the
    manifest's own folder. --json lists all findings.
    """
    from launcher.cli.progress import bar
    from launcher.data import check_manifest

    say = context().out
    with bar(say, "checking", "recordings") as progress:
        found = check_manifest(file, max_duration_s=max_duration, tokenizer=tokenizer, progress=progress)
    _tell(say, found, limit)
    dropped = {"rows": found.dropped_rows, "hours": round(found.dropped_hours, 6)}
    say.result(
        {
            "manifest": str(found.manifest),
            "rows": found.rows,
            "hours": round(found.hours, 6),
            "longest_s": found.longest_s,
            "categories": found.categories,
            "errors": [finding.as_json() for finding in found.errors],
            "warnings": [finding.as_json() for finding in found.warnings],
            "max_duration_s": found.max_duration_s,
            "dropped": dropped if max_duration is not None else None,
        }
    )
    if say.quiet and not found.ok:
        say.warn(f"{found.manifest}: {len(found.errors):,} at fault, the first in line {found.errors[0].line}")
    return 0 if found.ok else 2


def _tell(say: Output, found: CheckResult, limit: int) -> None:
    """The findings as a person reads them: grouped by severity, by line, no more than `limit` of each."""
    from rich.table import Table
    from rich.text import Text

    from launcher.cli.import_ import length
    from launcher.data.checking import counted_problems
    from launcher.data.entries import counted

    for findings, word, style in ((found.errors, "error", "red"), (found.warnings, "warning", "yellow")):
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(style=style)
        table.add_column(ratio=1)
        for finding in findings[:limit]:
            words = f"{_printable(finding.problem)} {_printable(finding.fix)}"
            where = Text(f"{_printable(found.manifest.name)}:{finding.line}")
            table.add_row(where, Text(_printable(finding.field)), Text(words))
        if findings and limit:
            say.say(table)
        if len(findings) > limit:
            kinds = ", ".join(f"{name} {count:,}" for count, name in counted_problems(findings))
            more = f"… and {len(findings) - limit:,} more {word}s. In all, by field: {kinds}. --json lists them."
            say.say(Text(more, style="dim"))
    summary = f"{counted(found.rows, 'row')}, {length(found.hours)}, the longest {found.longest_s:.1f} s"
    if found.categories:
        summary += "; " + ", ".join(f"{name} {count:,}" for name, count in found.categories.items())
    say.say(Text(_printable(summary)))
    if found.max_duration_s is not None:
        say.say(f"{counted(found.dropped_rows, 'row')} ({length(found.dropped_hours)}) longer than "
                f"{found.max_duration_s:g} s: training would drop them")  # fmt: skip
    if found.errors or found.warnings:
        counts = f"{counted(len(found.errors), 'error')}, {counted(len(found.warnings), 'warning')}"
        say.say(Text(counts, style="bold red" if found.errors else "yellow"))
    else:
        say.say(Text("nothing wrong with it", style="green"))


def _printable(text: str) -> str:
    """User data without what would steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


@command.command("split")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where train.jsonl and validation.jsonl go.",
)
@click.option("--val-fraction", type=float, default=0.2, show_default=True, help="Share of rows to hold out.")
@click.option("--seed", type=int, default=42, show_default=True)
@click.option("--group-by", metavar="FIELD", help="Keep rows with the same value together, such as voice_id.")
@click.option("--priority", metavar="A,B", default="", help="Categories that must have enough rows to measure.")
@common_options
def split(file: Path, out: Path, val_fraction: float, seed: int, group_by: str | None, priority: str) -> int:
    """Split a manifest into train.jsonl and validation.jsonl, the same way every time.

    Rows are held out category by category (entity_category), where there are categories. Rows that share a
    recording stay together; with --group-by voice_id, so do the rows of one speaker.
    """
    from rich.table import Table
    from rich.text import Text

    from launcher.cli.progress import bar
    from launcher.data import split_manifest

    say = context().out
    wanted = [name.strip() for name in priority.split(",") if name.strip()]
    with bar(say, "comparing", "recordings") as progress:
        made = split_manifest(
            file, out, val_fraction=val_fraction, seed=seed, group_by=group_by, priority=wanted, progress=progress
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("training", "validation", "held out"):
        table.add_column(column, justify="right")

    def add(name: str, train: int, validation: int, style: str | None = None) -> None:
        share = validation / (train + validation)
        table.add_row(Text(name), f"{train:,}", f"{validation:,}", f"{share:.0%}", style=style)

    for name, count in made.counts.items():
        add(name, count["train"], count["validation"])
    if len(made.counts) > 1:
        add("all rows", made.rows("train"), made.rows("validation"), "bold")
    if made.groups:
        add(f"groups by {group_by}", made.groups["train"], made.groups["validation"])
    say.say(table)
    for warning in made.warnings:
        say.warn(warning)
    say.say(f"Training    {made.train}\nValidation  {made.validation}")
    say.result(
        {
            "train": str(made.train),
            "validation": str(made.validation),
            "counts": made.counts,
            "warnings": list(made.warnings),
            "rows": {"train": made.rows("train"), "validation": made.rows("validation")},
            "groups": made.groups,
        }
    )
    return 0
