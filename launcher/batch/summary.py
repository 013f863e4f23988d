"""What came of a batch: a row for each job with its money, its scores and what a point cost; table, text and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from launcher.money import ZERO, Usd

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.ledger import Run

DASH = "—"
WORDS = {"settled": "done"}  # a run's state, as a person says it


@dataclass(frozen=True)
class Row:
    """One job. Rates are shares (0.41), `points` are percentage points gained, positive is better."""

    name: str
    state: str
    why: str = ""
    run: str | None = None
    exit: int | None = None
    charged: Usd | None = None
    ceiling: Usd | None = None
    metric: str | None = None  # KER where the rows have terms, else WER
    before: float | None = None
    after: float | None = None
    forgets: bool = False
    best: bool = False

    @property
    def points(self) -> float | None:
        """Percentage points gained."""
        if self.before is None or self.after is None:
            return None
        return 100 * (self.before - self.after)

    @property
    def usd_per_point(self) -> Usd | None:
        """What one point gained cost; None where nothing was gained."""
        if self.charged is None or self.points is None or round(self.points, 2) <= 0:
            return None
        return Usd(self.charged / Usd(f"{self.points:.6f}"))

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> Row:
        """The row that `as_json` wrote."""
        usd = {name: None if text is None else Usd(text) for name, text in held["usd"].items()}
        return cls(
            held["job"], held["state"], held["why"], held["run"], held["exit"], usd["charged"], usd["ceiling"],
            held["metric"], held["before"], held["after"], held["forgets"], held["best"],
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """For `batch --json` and summary.json."""
        return {
            "job": self.name, "run": self.run, "state": self.state, "exit": self.exit, "why": self.why,
            "usd": {"charged": _money(self.charged), "ceiling": _money(self.ceiling)},
            "metric": self.metric, "before": self.before, "after": self.after,
            "points_gained": None if self.points is None else round(self.points, 2),
            "usd_per_point": _money(self.usd_per_point), "forgets": self.forgets, "best": self.best,
        }  # fmt: skip


def row_of(name: str, run: str, state: str, outcome: dict[str, Any] | None, ceiling: Usd, why: str = "") -> Row:
    """The row of a run, from its outcome (what `run --json` prints) once there is one."""
    if outcome is None:
        return Row(name, state, why, run, None, None, ceiling)
    scores = outcome.get("scores") or {}
    old, new = ((scores.get(when) or {}).get("target") or {} for when in ("before", "after"))
    metric, before, after = next(
        (
            (words, _rate(old, *keys), _rate(new, *keys))
            for words, keys in (("KER", ("macro", "ker")), ("WER", ("micro", "wer")))
            if _rate(old, *keys) is not None or _rate(new, *keys) is not None
        ),
        (None, None, None),
    )
    usd = outcome["usd"]
    return Row(
        name, str(outcome["state"]), outcome.get("reason") or why, run, int(outcome["exit"]), Usd(usd["charged"]),
        ceiling, metric, before, after,
        forgets=(outcome.get("decision") or {}).get("decision") == "reject_forgets",
    )  # fmt: skip


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark, for each metric, the row that gained most (the cheaper of two); one that forgets is never the best."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.metric and row.usd_per_point is not None and not row.forgets:
            held = best.get(row.metric)
            if held is None or _rank(row) > _rank(held):
                best[row.metric] = row
    return [replace(row, best=any(row is each for each in best.values())) for row in rows]


def table(rows: Sequence[Row], width: int) -> Table:
    """The rows for a terminal of `width` columns; each reason stands under its row."""
    from rich.table import Table
    from rich.text import Text

    wide = width >= 100
    made = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), header_style="dim", pad_edge=False)
    made.add_column("job", overflow="fold", min_width=12)
    for name in ("run", "state") if wide else ("state",):
        made.add_column(name, no_wrap=True)
    for name in ("charged", "at most", *(("points gained", "$ a point") if wide else ("points", "$/point"))):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("keywords missed, or WER" if wide else "KER or WER", no_wrap=True)
    for row in rows:
        named = Text(("★ " if row.best else "") + row.name)
        run, state, paid, ceiling, change, points, price = _cells(row)
        style = "bold green" if row.best else "red" if row.exit in (5, 6) else None
        made.add_row(named, *((run,) if wide else ()), state, paid, ceiling, points, price, change, style=style)
    return made


def reasons(rows: Sequence[Row]) -> list[str]:
    """`job: why`, for each row that has something to say; rows with the same reason share a line."""
    said: dict[str, list[str]] = {}
    for row in rows:
        if row.why:
            said.setdefault(row.why, []).append(row.name)
    return [f"{some(names)}: {why}" for why, names in said.items()]


def markdown(title: str, rows: Sequence[Row], lines: Sequence[str]) -> str:
    """summary.md: a table and what it all came to."""
    head = ("job", "run", "state", "charged", "at most", "KER or WER", "points gained", "$ a point", "why")
    text = [f"# Batch {_cell(title)}", "", "| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * 5 + "---|"]
    for row in rows:
        name = f"**{_cell(row.name)}** (best)" if row.best else _cell(row.name)
        text.append("| " + " | ".join((name, *_cells(row), _cell(row.why))) + " |")
    return "\n".join([*text, "", *lines]) + "\n"


def plain(rows: Sequence[Row]) -> str:
    """One line a job, for a notification."""
    return "\n".join(
        f"{'★ ' if row.best else ''}{row.name}: {row.state}"
        + (f", ${row.charged}" if row.charged is not None else "")
        + (f", {row.metric} {_percent(row.before)} → {_percent(row.after)}" if row.metric else "")
        + (f" ({row.why})" if row.why else "")
        for row in rows
    )


def charged(rows: Sequence[Row]) -> Usd:
    """What all runs of the batch were charged so far."""
    return sum((row.charged for row in rows if row.charged is not None), ZERO)


def _cells(row: Row) -> tuple[str, ...]:
    """Run, state, charged, ceiling, change, points, price of a point."""
    points, price = row.points, row.usd_per_point
    change = f"{row.metric} {_percent(row.before)} → {_percent(row.after)}" if row.metric else DASH
    return (
        row.run or DASH, WORDS.get(row.state, row.state),
        DASH if row.charged is None else f"${row.charged}", DASH if row.ceiling is None else f"${row.ceiling}",
        change, DASH if points is None else f"{points:+.1f}", DASH if price is None else f"${price}",
    )  # fmt: skip


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rank(row: Row) -> tuple[float, Usd]:
    return (round(row.points or 0, 2), ZERO - (row.charged or ZERO))


def _rate(score: dict[str, Any], group: str, name: str) -> float | None:
    leaf = (score.get(group) or {}).get(name) or {}
    rate = leaf.get("rate")
    return float(rate) if rate is not None else None


def _percent(rate: float | None) -> str:
    return DASH if rate is None else f"{100 * rate:.1f}%"


def _money(amount: Usd | None) -> str | None:
    return None if amount is None else str(amount)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def ended_in_words(run: Run) -> str:
    """How a run of the batch ended, in a line: state, charge, reason."""
    outcome = run.outcome or {}
    charged = f", ${outcome['usd']['charged']} charged" if "usd" in outcome else ""
    state = WORDS.get(str(run.state), str(run.state))
    return f"{state}{charged}{f': {run.reason}' if run.reason else ''}"
