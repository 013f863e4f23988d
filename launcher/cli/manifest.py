"""`launcher manifest`: check a manifest, or split it into training and validation rows."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.group("manifest")
@common_options
def command() -> None:
    """Check or split a manifest."""


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
