"""The leaderboard of a cycle, as markdown in five sections and as a table for a terminal: dicts in, text out.

A score is the content of score.json, as `recipes.scoring` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Score = Mapping[str, Any]
Leaf = Mapping[str, Any]

_SECTIONS = (
    ("entity_category", "2. Keywords missed by category"),
    ("ipa_source", "3. Keywords missed by pronunciation source"),
    ("noise_level", "4. Keywords missed by noise level"),
)
_SHOWN_NUMBERS = 20


def leaderboard_name(cycle: int) -> str:
    """The file name of a cycle's leaderboard."""
    return f"leaderboard_cycle{cycle}.md"


def leaderboard(
    score: Score,
    before: Score | None = None,
    *,
    cycle: int = 1,
    model: str = "",
    general: Score | None = None,
    general_before: Score | None = None,
    decision: Mapping[str, Any] | None = None,
) -> str:
    """The leaderboard as markdown: headline, KER by category, by pronunciation source, by noise, by term.

    `before` (the base model on the same rows) puts both numbers side by side; `general` and
    `general_before` are the general set, to show what was forgotten; `decision` is `decide`'s JSON.
    """
    parts = [f"# Leaderboard, cycle {cycle}", ""]
    if model:
        parts += [f"Model: {cell(model)}", ""]
    parts += [scope(score), ""]
    parts += [f"> **{cell(warning)}**" for warning in score.get("warnings") or []]
    if score.get("warnings"):
        parts.append("")
    parts += ["## 1. Headline", "", *_headline(score, before)]
    parts += _general(general, general_before)
    if decision:
        parts += [f"Decision: **{decision['decision']}**", ""]
        parts += [f"- {cell(reason)}" for reason in decision.get("reasons") or []] + [""]
    for group, title in _SECTIONS:
        parts += [f"## {title}", "", *_group(score, before, group)]
    parts += ["## 5. Keywords missed by term, worst first", "", *_group(score, before, "term")]
    parts += _numbers(score)
    return "\n".join(parts).rstrip() + "\n"


def scope(score: Score) -> str:
    """Which rows were scored, in a sentence."""
    splits = score.get("splits") or {}
    hours = f", {score['hours']:.2f} h" if score.get("hours") else ""
    rows = f"{score.get('rows', 0)} rows{hours}, {score.get('mode', 'clinical')} mode"
    if splits.get("train"):
        said = "not validation-only: " + ", ".join(f"{n} of {name}" for name, n in splits.items())
    elif splits:
        said = "validation only (" + ", ".join(f"{n} rows of {name}" for name, n in splits.items()) + ")"
    else:
        said = "the rows say nothing of a split: what was scored must be kept out of training"
    return f"Scored: {rows}; {said}."


def rate_text(leaf: Leaf | None) -> str:
    """A leaf as `12.8% [5.6\u201326.7]`, or a dash; a rate over an empty reference is a count of errors."""
    if not leaf or leaf.get("rate") is None:
        return "\u2013"
    if not leaf.get("total"):
        return f"{leaf['errors']} errors, no reference"
    interval = leaf.get("ci95")
    shown = f" [{100 * interval[0]:.1f}\u2013{100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * leaf['rate']:.1f}%{shown}"


def headline_rows(score: Score) -> list[tuple[str, Leaf | None]]:
    """The headline's (name, leaf) pairs, most telling first."""
    micro, macro = score.get("micro") or {}, score.get("macro") or {}
    rows: list[tuple[str, Leaf | None]] = [("Keywords missed (KER)", macro.get("ker"))] if macro.get("ker") else []
    if rows and score.get("mode") != "nvidia":
        rows.append(("KER, nvidia mode", score.get("nvidia_ker")))
    return [
        *rows,
        ("WER, micro", micro.get("wer")), ("WER, mean of rows", macro.get("wer")),
        ("CER, micro", micro.get("cer")), ("CER, mean of rows", macro.get("cer")),
        ("Sentences with an error (SER)", macro.get("ser")),
    ]  # fmt: skip


def score_table(score: Score, before: Score | None = None, title: str = "") -> Table:
    """The compact form for a terminal: headline and categories, before and after where both are given."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, box=SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.caption = Text(scope(score))
    table.add_column("")
    for name in ("before", "after") if before else ("rate [95%]",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("errors", justify="right", no_wrap=True)
    pairs = [(name, leaf, (before or {}) and dict(headline_rows(before or {})).get(name))
             for name, leaf in headline_rows(score)]  # fmt: skip
    categories = worst_first((score.get("ker_by") or {}).get("entity_category") or {})
    old = ((before or {}).get("ker_by") or {}).get("entity_category") or {}
    pairs += [(f"  {name}", leaf, old.get(name)) for name, leaf in categories]
    for name, leaf, was in pairs:
        numbers = [rate_text(was)] if before else []
        table.add_row(Text(name), *(Text(n) for n in [*numbers, rate_text(leaf), _counts(leaf)]))
    return table


def cell(text: object) -> str:
    """User data as markdown text: on one line, with nothing in it read as a table, a tag or formatting."""
    said = " ".join(str(text).split())
    for char in "\\`*_[]|#~":
        said = said.replace(char, "\\" + char)
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _headline(score: Score, before: Score | None) -> list[str]:
    old = dict(headline_rows(before)) if before else {}
    lines = _head("", before)
    for name, leaf in headline_rows(score):
        lines.append(_line(name, leaf, old.get(name), before))
    edits = score.get("edits") or {}
    if edits:
        words = ", ".join(
            f"{edits.get(key, 0)} {key}" for key in ("substitutions", "deletions", "insertions", "hits")
        )
        lines += [
            "",
            f"Words: {words}. Intervals are 95%: Wilson for KER and SER, bootstrap for WER and CER.",
        ]
    return [*lines, ""]


def _general(general: Score | None, general_before: Score | None) -> list[str]:
    if not general and not general_before:
        return ["General set: not scored, so what was forgotten is not known.", ""]
    shown = [rate_text((score.get("micro") or {}).get("wer")) for score in (general_before, general) if score]
    forgot = ""
    if general and general_before:
        rise = 100 * (general["micro"]["wer"]["rate"] - general_before["micro"]["wer"]["rate"])
        forgot = f" ({rise:+.1f} points)"
    arrow = " → "
    rows = (general or general_before or {}).get("rows", 0)
    return [f"General set ({rows} rows), WER: {arrow.join(shown)}{forgot}", ""]


def _group(score: Score, before: Score | None, group: str) -> list[str]:
    leaves = (score.get("ker_by") or {}).get(group) or {}
    if not leaves:
        return [f"No row has a term with `{group}`." if group != "term" else "No row has a term.", ""]
    old = ((before or {}).get("ker_by") or {}).get(group) or {}
    lines = _head(group, before)
    lines += [_line(cell(name), leaf, old.get(name), before) for name, leaf in worst_first(leaves)]
    return [*lines, ""]


def _numbers(score: Score) -> list[str]:
    errors = score.get("number_errors") or []
    if not errors:
        return ["## Numbers and units", "", "No error in a number or a unit.", ""]
    lines = ["## Numbers and units", "", "| kind | said | heard | audio |", "|---|---|---|---|"]
    for error in gravest_first(errors)[:_SHOWN_NUMBERS]:
        said = [cell(error[key]) or "\u2013" for key in ("kind", "reference", "hypothesis", "audio_filepath")]
        lines.append(f"| {' | '.join(said)} |")
    if len(errors) > _SHOWN_NUMBERS:
        lines += ["", f"{len(errors) - _SHOWN_NUMBERS} more in score.json."]
    return [*lines, ""]


def gravest_first(errors: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Number errors, a tenfold dose before a mere difference of form."""
    order = ("tenfold", "value", "unit", "missing", "added", "number_format")
    return sorted(errors, key=lambda error: order.index(error["kind"]) if error["kind"] in order else len(order))


def worst_first(leaves: Mapping[str, Leaf]) -> list[tuple[str, Leaf]]:
    """Highest rate first; of equal rates the one with more rows, which is the surer."""
    return sorted(
        leaves.items(), key=lambda item: (-(item[1].get("rate") or 0), -(item[1].get("total") or 0), item[0])
    )


def _head(group: str, before: Score | None) -> list[str]:
    if before:
        return [f"| {group} | before | after | errors / total |", "|---|---:|---:|---:|"]
    return [f"| {group} | rate [95%] | errors / total |", "|---|---:|---:|"]


def _line(name: str, leaf: Leaf | None, was: Leaf | None, before: Score | None) -> str:
    side = f" {rate_text(was)} |" if before else ""
    return f"| {name} |{side} {rate_text(leaf)} | {_counts(leaf)} |"


def _counts(leaf: Leaf | None) -> str:
    if not leaf:
        return "\u2013"
    errors = leaf["errors"]
    return f"{errors:.1f} / {leaf['total']}" if isinstance(errors, float) else f"{errors} / {leaf['total']}"
