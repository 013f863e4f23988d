"""`launcher score`: WER, CER, KER and SER of a hypotheses file, with intervals."""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("score")
@click.argument("references", metavar="REF.jsonl", type=click.Path(dir_okay=False))
@click.argument("hypotheses", metavar="HYP.jsonl", type=click.Path(dir_okay=False))
@click.option("--mode", type=click.Choice(["clinical", "nvidia", "plain"]), default="clinical",
              show_default=True,
              help="clinical is safe, nvidia compatible, plain takes the words as they stand.")  # fmt: skip
@click.option("--out", metavar="DIR", help="Also write score.json, per_sample.json, results.csv and the hypotheses.")
@click.option("--train", metavar="FILE", help="The training manifest: warn if a scored row is in it.")
@click.option("--bootstrap", metavar="N", type=click.IntRange(min=0),
              help="Replications for WER and CER intervals (10,000; 1,000 beyond 2,000 rows); 0: none.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Seed of the bootstrap.")
@common_options
def command(
    references: str, hypotheses: str, mode: str, out: str | None, train: str | None, bootstrap: int | None, seed: int
) -> int:
    """Score transcripts against a manifest; rows match by audio_filepath."""
    from launcher.cli.scorefiles import bad_input
    from launcher.report.leaderboard import score_table
    from recipes.manifest import read_manifest
    from recipes.scoring import read_pair, score_rows, write_score

    out_to = context().out
    with bad_input():
        said, heard = read_pair(references, hypotheses)
        trained = [str(row.get("audio_filepath")) for row in read_manifest(train)] if train else []
        score = score_rows(said, heard, mode, bootstrap, seed, trained)
        if out:
            write_score(out, score)
    for warning in score.summary["warnings"]:
        out_to.warn(warning)
    out_to.say(score_table(score.summary))
    if out:
        out_to.say(f"written to {out}")
    out_to.result(score.as_json())
    return 0
