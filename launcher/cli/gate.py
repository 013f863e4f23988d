"""`launcher gate`: is tuning worth it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from launcher.cli import common_options, context


def _audio_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(row.get("audio_filepath")) for row in rows]


@click.command("gate")
@click.argument("manifest", type=click.Path(dir_okay=False))
@click.option("--baseline", metavar="per_sample.json", required=True,
              help="The base model's rows (or the folder that holds per_sample.json).")  # fmt: skip
@click.option("--priority", metavar="A,B", default="", help="The entity categories that matter; default: all terms.")
@click.option("--cycle", type=click.IntRange(min=1), default=1, show_default=True, help="Which cycle this is.")
@common_options
def command(manifest: str, baseline: str, priority: str, cycle: int) -> int:
    """Say whether tuning is worth it, and why. Exit 7 unless the answer is tune."""
    from launcher.cli.scorefiles import bad_input
    from launcher.errors import ExitCode
    from recipes.manifest import read_manifest
    from recipes.scoring import gate, read_per_sample
    from recipes.scoring.files import as_in

    out = context().out
    with bad_input():
        names = [name.strip() for name in priority.split(",") if name.strip()]
        rows, scored = read_manifest(manifest), read_per_sample(baseline)
        mine = as_in(_audio_of(rows), _audio_of(scored), Path(manifest).parent)
        scored = [{**row, "audio_filepath": mine.get(str(row.get("audio_filepath")))} for row in scored]
        answer = gate(rows, scored, names, cycle)
    out.answer(answer.decision, style="bold")
    for reason in answer.reasons:
        out.say(f"  {reason}")
    out.result(answer.as_json())
    return int(ExitCode.OK if answer.go else ExitCode.GATE_SAID_NO)
