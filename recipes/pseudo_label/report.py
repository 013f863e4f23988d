"""The report of a labelling: how much was kept, why the rest was not, and what another bound would keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.contract import write_atomic, write_json
from recipes.manifest import Row
from recipes.pseudo_label.filtering import REASONS
from recipes.pseudo_label.sorting import Sorted
from recipes.pseudo_label.spec import PseudoLabelSpec

BOUNDS = tuple(tenth / 10 for tenth in range(10))
BY_CONFIDENCE = ("low_confidence", "less_confident")


def write_report(out: Path, found: Sorted, spec: PseudoLabelSpec) -> dict[str, Any]:
    """Write report.json and report.md; returns the metrics of result.json."""
    told = report_of(found, spec)
    write_json(out / "report.json", told)
    write_atomic(out / "report.md", as_markdown(told))
    names = ("rows", "unheard", "kept", "hours", "hours_kept", "mean_confidence")
    return {name: told[name] for name in names} | {f"filtered_{why}": n for why, n in told["filtered"].items()}


def report_of(found: Sorted, spec: PseudoLabelSpec) -> dict[str, Any]:
    """What report.json holds. `at_bound`: rows and hours that pass all else and have at least that confidence."""
    rows = [*found.labelled, *found.filtered]
    passing = [*found.labelled, *(row for row in found.filtered if row["reason"] in BY_CONFIDENCE)]
    reasons = Counter(row["reason"] for row in found.filtered)
    sure = [row["confidence"] for row in found.labelled]
    return {
        "teacher": spec.name,
        "kind": spec.kind,
        "min_confidence": spec.least_confidence,
        "keep_fraction": spec.keep_fraction,
        "rows": len(rows) + found.unheard,
        "unheard": found.unheard,
        "hours": _hours(rows),
        "kept": len(found.labelled),
        "hours_kept": _hours(found.labelled),
        "mean_confidence": round(sum(sure) / len(sure), 4) if sure else None,
        "filtered": {why: reasons[why] for why in REASONS if reasons[why]},
        "at_bound": [
            {"min_confidence": bound, "rows": len(above), "hours": _hours(above)}
            for bound in BOUNDS
            for above in ([row for row in passing if row["confidence"] >= bound],)
        ],
    }


def as_markdown(told: dict[str, Any]) -> str:
    """The same for a person."""
    bound = f"min_confidence {told['min_confidence']:g}" if told["min_confidence"] is not None else "no bound"
    share = f", the most confident {told['keep_fraction']:.0%}" if told["keep_fraction"] is not None else ""
    lines = [
        f"# What {told['teacher']} heard",
        "",
        f"Kept: {told['kept']} of {told['rows']} rows, {told['hours_kept']:.2f} of {told['hours']:.2f} h "
        f"({bound}{share}).",
    ]
    if told["unheard"]:
        lines.append(f"Not come to: {told['unheard']} rows.")
    lines += ["", "| filtered because | rows |", "|---|---:|"]
    lines += [f"| {why.replace('_', ' ')} | {count} |" for why, count in told["filtered"].items()] or ["| – | 0 |"]
    lines += ["", "Of the rows that pass all else, a bound would keep:", "", "| min_confidence | rows | hours |"]
    lines.append("|---:|---:|---:|")
    lines += [f"| {each['min_confidence']:g} | {each['rows']} | {each['hours']:.2f} |" for each in told["at_bound"]]
    return "\n".join(lines) + "\n"


def _hours(rows: Sequence[Row]) -> float:
    return round(sum(float(row.get("duration", 0.0)) for row in rows) / 3600, 4)
