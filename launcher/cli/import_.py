"""`launcher import`: a folder of recordings and transcripts becomes 16 kHz mono audio and a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from launcher.cli.output import Output
    from launcher.data import ImportResult


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Where the result goes.")
@click.option(
    "--transcripts",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The transcripts, where several files could be meant (repeat for several).",
)
@click.option("--language", metavar="CODE", help="Mark the rows with it; leave out rows of another language.")
@click.option("--format", "audio_format", type=click.Choice(["flac", "wav"]), default="flac", show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Processes that convert (default: one per core).")
@common_options
def command(
    path: Path,
    out: Path,
    transcripts: tuple[Path, ...],
    language: str | None,
    audio_format: Literal["flac", "wav"],
    workers: int | None,
) -> int:
    """Turn a folder of recordings (any format, rate, channels) and transcripts into a manifest.

    Transcripts: a CSV, TSV or JSONL file, a .txt beside each recording, or the layouts of Common Voice and
    LibriSpeech. What cannot be used is listed, with the reason, in skipped.csv. Run it again to go on after an
    interruption.
    """
    from launcher.cli.progress import bar
    from launcher.data import import_recordings

    say = context().out
    with bar(say, "importing", "clips") as progress:
        made = import_recordings(
            path, out, transcripts=transcripts, language=language, audio_format=audio_format, workers=workers,
            progress=progress,
        )  # fmt: skip
    describe_import(say, made)
    say.result(
        {
            "manifest": str(made.manifest),
            "rows": made.rows,
            "hours": round(made.hours, 6),
            "skipped": [{"path": s.path, "why": s.why} for s in made.skipped],
            "skipped_csv": str(made.skipped_csv),
            "transcripts": [str(t) for t in made.transcripts],
            "formats": made.formats,
            "reused": made.reused,
            "warnings": list(made.warnings),
        }
    )
    return 0


def describe_import(say: Output, made: ImportResult) -> None:
    """Tell a person what was read, what was left out and where the result is (`tune` says the same)."""
    from rich.text import Text

    from launcher.data.entries import counted

    kinds = list(made.formats)
    what = kinds[0] if len(kinds) == 1 else f"{len(kinds)} kinds of audio"
    names = ", ".join(t.name for t in made.transcripts[:2])
    names += f" and {len(made.transcripts) - 2} more" if len(made.transcripts) > 2 else ""
    line = f"Read {counted(made.rows, 'clip')}, {length(made.hours)} ({what} → 16 kHz mono) and {names}"
    if made.skipped:
        line += f"; {len(made.skipped):,} left out (list: {made.skipped_csv.name})"
    say.say(Text(line))
    if len(kinds) > 1:
        for kind, count in list(made.formats.items())[:6]:
            say.say(f"  {count:>7,}  {kind}")
        if len(kinds) > 6:
            say.say(f"  {sum(list(made.formats.values())[6:]):>7,}  in {len(kinds) - 6} other kinds")
    for skipped in made.skipped[:5]:
        say.say(Text(f"  left out  {skipped.path!s}: {skipped.why}", style="dim"))
    if len(made.skipped) > 5:
        say.say(Text(f"  and {len(made.skipped) - 5:,} more in {made.skipped_csv}", style="dim"))
    if made.reused:
        say.say(f"{made.reused:,} of them were there already")
    for warning in made.warnings:
        say.warn(warning)
    say.say(f"Manifest  {made.manifest}")


def length(hours: float) -> str:
    """A length of audio as a person says it: 1.9 h, 12 min, 8.4 s."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 2 else f"{hours * 3600:.1f} s"
