"""`launcher transcribe MODEL AUDIO…`: try a model on your own clips."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.command("transcribe")
@click.argument("model")
@click.argument("audio", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--against", metavar="OTHER", help="A second model; the difference is shown.")
@common_options
def command(model: str, audio: tuple[Path, ...], against: str | None) -> int:
    """Transcribe AUDIO with MODEL; with --against OTHER show what the two hear differently."""
    import json
    import tempfile

    from launcher.clock import SystemClock
    from launcher.errors import BadInputError
    from launcher.local_recipe import run_here

    ctx = context()
    for path in audio:
        if not path.is_file():
            raise BadInputError("no such file.", key="AUDIO", value=str(path), file=path)
    for name in (model, against):
        if name and name.endswith(".nemo") and not Path(name).is_file():
            raise BadInputError("no such .nemo file.", key="MODEL", value=name, file=name)
    spec = {"model": _absolute(model), "audio": [str(path.absolute()) for path in audio],
            "against": _absolute(against) if against else None}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="launcher-") as scratch:
        run_here("transcribe", spec, Path(scratch), SystemClock(), _tell)
        rows = json.loads((Path(scratch) / "transcripts.json").read_text(encoding="utf-8"))["rows"]
    given = {str(path.absolute()): str(path) for path in audio}
    for row in rows:
        row["audio_filepath"] = given.get(row["audio_filepath"], row["audio_filepath"])
        ctx.out.say(row["audio_filepath"], style="dim")
        ctx.out.say(f"  {row['pred_text']}")
        if against:
            ctx.out.say(f"  {row.get('against_text', '')}   ({against})")
    ctx.out.result({"rows": rows})
    return 0


def _absolute(model: str) -> str:
    return str(Path(model).absolute()) if model.endswith(".nemo") else model


def _tell(event: dict[str, object]) -> None:
    if event.get("kind") == "warning":
        click.echo(f"warning: {event.get('message')}", err=True)
