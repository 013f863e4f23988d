"""`launcher decide`: keep the tuned model, or not?"""

from __future__ import annotations

import click

from launcher.cli import common_options, context


@click.command("decide")
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
@click.option("--general-before", metavar="SCORE", help="The general set, scored with the base model.")
@click.option("--general-after", metavar="SCORE", help="The general set, scored with the tuned model.")
@click.option("--max-general-rise", metavar="WER", type=click.FloatRange(0, 1), default=0.05,
              show_default=True,
              help="How much general WER may rise, absolute, before the model is rejected.")  # fmt: skip
@click.option("--priority", metavar="A,B", default="", help="Go by the KER of these entity categories only.")
@common_options
def command(
    before: str,
    after: str,
    general_before: str | None,
    general_after: str | None,
    max_general_rise: float,
    priority: str,
) -> int:
    """Decide from score files (a score.json, or its folder) whether a cycle was worth keeping."""
    from launcher.cli.scorefiles import bad_input
    from recipes.scoring import decide, read_score

    out = context().out
    with bad_input():
        (old, old_rows), (new, new_rows) = read_score(before), read_score(after)
        general = [read_score(path)[0] if path else None for path in (general_before, general_after)]
        answer = decide(
            old, new, general[0], general[1],
            max_general_rise=max_general_rise,
            priority=[name.strip() for name in priority.split(",") if name.strip()],
            rows=(old_rows, new_rows) if old_rows is not None and new_rows is not None else None,
        )  # fmt: skip
    for warning in answer.warnings:
        out.warn(warning)
    out.answer(answer.decision, style="bold")
    for reason in answer.reasons:
        out.say(f"  {reason}")
    out.result(answer.as_json())
    return 0
