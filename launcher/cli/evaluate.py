"""`launcher evaluate MODEL MANIFEST`: transcribe and score here."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.command("evaluate")
@click.argument("model")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the row files go [default: evaluations/MODEL].")
@click.option("--general", type=click.Path(path_type=Path), help="A manifest of everyday speech, scored beside it.")
@click.option(
    "--against", metavar="TRANSCRIPTS", type=click.Path(path_type=Path),
    help="Compare with another system's: JSON lines of audio_filepath and pred_text or text, or Whisper's own .json, "
    "or a folder of those.",
)
@click.option("--mode", type=click.Choice(["clinical", "nvidia"]), default="clinical", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@common_options
def command(model: str, manifest: Path, out: Path | None, general: Path | None, against: Path | None, mode: str,
            batch_size: int) -> int:
    """Transcribe MANIFEST with MODEL (a .nemo file or a pretrained name) and score it; write the row files."""
    import json

    from launcher.cli.model import named_model
    from launcher.cli.progress import bar
    from launcher.clock import SystemClock
    from launcher.errors import BadInputError
    from launcher.local_recipe import run_here
    from launcher.report.comparison import comparison_table
    from launcher.report.leaderboard import score_table
    from launcher.viewer.state import Progress
    from launcher.workflow import refuse_faulty
    from recipes.evaluate.comparing import AGAINST, COMPARISON
    from recipes.scoring import read_score

    ctx = context()
    named = named_model(model)
    for path in (manifest, general):
        if path is not None:
            refuse_faulty(path)
    if against is not None and not against.exists():
        raise BadInputError("no such file or folder.", key="--against", value=str(against), file=against)
    folder = (out or Path("evaluations") / Path(model).stem.replace("/", "-")).absolute()
    spec = {
        "model": named,
        "manifest": str(manifest.absolute()), "general_manifest": str(general.absolute()) if general else None,
        "against": str(against.absolute()) if against else None, "mode": mode, "batch_size": batch_size,
    }  # fmt: skip
    progress = Progress()
    with bar(ctx.out, "evaluating", "clips") as shown:

        def tell(event: dict[str, object]) -> None:
            line = progress.fold(event)
            if event.get("kind") == "progress":
                if shown is not None:
                    shown(progress.at_step, progress.total)
            elif line:
                ctx.out.say(line)

        result = run_here("evaluate", spec, folder, SystemClock(), tell)
    score = read_score(folder)[0]
    other = read_score(folder / "general")[0] if general else None
    ctx.out.say(score_table(score))
    if other:
        ctx.out.say(score_table(other, title="general set"))
    compared: dict[str, object] = {}
    if against:
        beside = read_score(folder / AGAINST)[0]
        compared = json.loads((folder / COMPARISON).read_text(encoding="utf-8"))
        ctx.out.say(comparison_table(score, beside, compared | {"against": str(against)}, model))
        compared = {"against": beside, "comparison": compared}
    files = [str(folder / name) for name in result["artifacts"]]
    ctx.out.say(f"row files: {folder}")
    ctx.out.result({**score, "general": other, **compared, "files": files})
    return 0
