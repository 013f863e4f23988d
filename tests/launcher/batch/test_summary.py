"""The table of a batch: points, their price, the best; the worst exit code; what survives a trip through JSON."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from launcher.batch.summary import Row, mark_best, markdown, plain, reasons, row_of, table
from launcher.batch.worst import ORDER, worst
from launcher.errors import ExitCode
from launcher.money import Usd


def leaf(rate: float) -> dict[str, object]:
    return {"rate": rate, "total": 10, "errors": 1}


def outcome(before: float, after: float | None, charged: str, ker: bool = True, **more: object) -> dict[str, object]:
    def score(rate: float) -> dict[str, object]:
        both = {"micro": {"wer": leaf(rate / 2)}, "macro": {"ker": leaf(rate)} if ker else {}}
        return {"target": both}

    scores = {"before": score(before), "after": None if after is None else score(after)}
    return {"state": "settled", "exit": 0, "scores": scores, "usd": {"charged": charged, "ceiling": "1.00"}, **more}


def row(name: str, before: float, after: float | None, charged: str = "0.40", **more: object) -> Row:
    return row_of(name, "3f2a11", "settled", outcome(before, after, charged, **more), Usd("1.00"))


def test_a_point_of_ker_costs_what_was_charged_over_what_was_gained() -> None:
    made = row("a", 0.50, 0.10)
    assert (made.metric, round(made.points or 0, 6)) == ("KER", 40.0)
    assert made.usd_per_point == Usd("0.01")


def test_rows_without_terms_go_by_wer() -> None:
    made = row("a", 0.50, 0.10, ker=False)
    assert (made.metric, round(made.points or 0, 6)) == ("WER", 20.0)


@pytest.mark.parametrize("after", [0.50, 0.60, None])
def test_where_nothing_was_gained_no_price_is_told(after: float | None) -> None:
    assert row("a", 0.50, after).usd_per_point is None
    assert "| — |" in markdown("x", [row("a", 0.50, after)], [])


def test_the_best_gained_most_the_cheaper_of_two_and_forgets_nothing() -> None:
    forgetful = row("forgetful", 0.9, 0.0, decision={"decision": "reject_forgets"})
    dear, less = row("dear", 0.5, 0.1, "0.80"), row("less", 0.5, 0.2, "0.01")
    rows = mark_best([forgetful, dear, row("cheap", 0.5, 0.1), less])
    assert [each.name for each in rows if each.best] == ["cheap"]


def test_each_metric_has_its_own_best() -> None:
    rows = mark_best([row("ker", 0.5, 0.1), row("wer", 0.5, 0.4, ker=False)])
    assert [each.best for each in rows] == [True, True]


def test_a_row_comes_back_from_json_as_it_was() -> None:
    rows = mark_best([row("a", 0.5, 0.1), Row("b", "refused", "too dear", exit=4), Row("c", "same as 1")])
    assert [Row.from_json(each.as_json()) for each in rows] == rows


def test_reasons_that_are_the_same_share_a_line_and_many_names_are_counted() -> None:
    rows = [Row(f"job{n}", "refused", "too dear") for n in range(5)] + [Row("x", "failed", "it diverged")]
    assert reasons(rows) == ["job0, job1, job2 and 2 more: too dear", "x: it diverged"]


def test_names_cannot_break_the_markdown_table() -> None:
    text = markdown("x", [Row("a|b\nc", "refused", "d|e")], [])
    (line,) = [line for line in text.splitlines() if "refused" in line]
    assert line.count(" | ") == 8


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_says_every_state(width: int) -> None:
    rows = mark_best([row("base method=frozen_encoder learning_rate=0.0001", 1.0, 0.0, "12.3456"),
                      Row("b", "release_pending"), Row("c", "deferred")])  # fmt: skip
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(table(rows, width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for words in ("KER 100.0% → 0.0%", "$12.3456", "+100.0", "deferred"):
        assert words in text
    assert plain(rows).splitlines()[0].startswith("★ base")


def test_the_worst_exit_code_is_told_whatever_the_order() -> None:
    assert set(ORDER) == set(ExitCode)
    assert worst([]) is ExitCode.OK
    for one, other in itertools.combinations(ORDER, 2):
        assert worst([one, other]) is worst([other, one]) is one
    assert worst([0, 99]) is ExitCode.RECIPE_FAILED
