"""`launcher gate`: is tuning worth it?"""

from __future__ import annotations

import click

from launcher.cli import common_options, context


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

    out = context().out
    with bad_input():
        names = [name.strip() for name in priority.split(",") if name.strip()]
        answer = gate(read_manifest(manifest), read_per_sample(baseline), names, cycle)
    out.answer(answer.decision, style="bold")
    for reason in answer.reasons:
        out.say(f"  {reason}")
    out.result(answer.as_json())
    return int(ExitCode.OK if answer.go else ExitCode.GATE_SAID_NO)
