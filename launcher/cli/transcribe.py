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

    from launcher.cli.model import named_model
    from launcher.clock import SystemClock
    from launcher.errors import BadInputError
    from launcher.local_recipe import run_here

    ctx = context()
    for path in audio:
        if path.is_dir():
            raise BadInputError("is a folder.", key="AUDIO", file=path, fix="Name the recordings: FOLDER/*.wav")
        if not path.is_file():
            raise BadInputError("no such file.", key="AUDIO", value=str(path), file=path)
        if path.suffix == ".nemo":
            raise BadInputError("is a model.", key="AUDIO", file=path, fix="MODEL goes before AUDIO.")
    named, other = named_model(model), named_model(against, "--against") if against else None
    with tempfile.TemporaryDirectory(prefix="launcher-") as scratch:
        clips = [str(_readable(path, Path(scratch), number)) for number, path in enumerate(audio)]
        spec = {"model": named, "audio": clips, "against": other}
        run_here("transcribe", spec, Path(scratch) / "out", SystemClock(), _tell)
        rows = json.loads((Path(scratch) / "out" / "transcripts.json").read_text(encoding="utf-8"))["rows"]
    for path, row in zip(audio, rows, strict=True):
        row["audio_filepath"] = str(path)
        ctx.out.say(row["audio_filepath"], style="dim")
        ctx.out.answer(f"  {row['pred_text']}")
        if against:
            ctx.out.answer(f"  {row.get('against_text', '')}   ({against})")
    ctx.out.result({"rows": rows})
    return 0


def _readable(path: Path, scratch: Path, number: int) -> Path:
    """The clip itself where the recipe reads its format, else a copy at 16 kHz in `scratch`; or BadInputError."""
    import soundfile

    from launcher.data.convert import DecodeError, convert
    from launcher.errors import BadInputError

    try:
        soundfile.info(path)
    except soundfile.LibsndfileError:
        try:
            convert(path, scratch / f"{number}.flac")
        except DecodeError as error:
            raise BadInputError(f"{error}.", key="AUDIO", file=path) from None
        return scratch / f"{number}.flac"
    return path.absolute()


def _tell(event: dict[str, object]) -> None:
    if event.get("kind") == "warning":
        click.echo(f"warning: {event.get('message')}", err=True)
