"""The decision after a cycle, on and around every threshold."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.manifest import ManifestError
from recipes.scoring import compare, decide, score_rows


def score(ker: tuple[int, int] | None, wer: tuple[int, int] = (10, 100), **fields: Any) -> dict[str, Any]:
    def leaf(pair: tuple[int, int]) -> dict[str, Any]:
        return {"errors": pair[0], "total": pair[1], "rate": pair[0] / pair[1], "ci95": None}

    return {
        "mode": "clinical", "rows": 100, "micro": {"wer": leaf(wer), "cer": leaf(wer)},
        "macro": {"ker": leaf(ker) if ker else None}, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "decision"),
    [
        (100, 0, "keep"), (100, 80, "keep"), (25, 20, "keep"), (100, 81, "expand"), (100, 95, "expand"),
        (20, 19, "expand"), (100, 96, "no_change"), (100, 100, "no_change"), (100, 105, "no_change"),
        (100, 106, "grow"), (20, 21, "no_change"), (0, 0, "no_change"), (0, 1, "grow"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("metric", ["ker", "wer"])
def test_the_thresholds(before: int, after: int, decision: str, metric: str) -> None:
    if metric == "ker":
        answer = decide(score((before, 200)), score((after, 200)))
    else:
        answer = decide(score(None, (before, 1000)), score(None, (after, 1000)))
    assert (answer.decision, answer.deltas["metric"]) == (decision, metric)


@pytest.mark.parametrize(
    ("after", "decision"), [(40, "keep"), (90, "keep"), (91, "reject_forgets"), (910, "reject_forgets")]
)
def test_a_model_that_gained_and_forgot_is_rejected(after: int, decision: str) -> None:
    answer = decide(score((50, 100)), score((0, 100)), score(None, (40, 1000)), score(None, (after, 1000)))
    assert answer.decision == decision


def test_forgetting_rejects_whatever_else_happened_and_the_limit_can_be_moved() -> None:
    general = score(None, (40, 1000)), score(None, (120, 1000))
    assert decide(score((5, 100)), score((5, 100)), *general).decision == "reject_forgets"
    assert decide(score((50, 100)), score((5, 100)), *general, max_general_rise=0.08).decision == "keep"
    assert decide(score((50, 100)), score((5, 100)), *general, max_general_rise=0.079).decision == "reject_forgets"


def test_an_unmeasured_general_set_is_said_aloud() -> None:
    assert "not known" in decide(score((5, 10)), score((1, 10))).warnings[0]


def test_half_of_a_general_pair_is_refused() -> None:
    with pytest.raises(ManifestError, match="missing"):
        decide(score((5, 10)), score((1, 10)), general_after=score(None))


def test_scores_of_different_modes_or_rows_are_refused() -> None:
    with pytest.raises(ManifestError, match="nvidia mode"):
        decide(score((5, 10)), score((1, 10), mode="nvidia"))
    with pytest.raises(ManifestError, match="other rows"):
        decide(score((5, 10), rows_sha256="a"), score((1, 10), rows_sha256="b"))
    assert "same set" in decide(score((5, 10)), score((1, 10), rows=99)).warnings[0]


def test_a_score_without_a_rate_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"micro\.wer"):
        decide({"micro": {}}, {"micro": {}})


def test_priority_goes_by_the_named_categories() -> None:
    def by(drug: int, lab: int) -> dict[str, Any]:
        leaf = {"drug": {"errors": drug, "total": 10}, "lab": {"errors": lab, "total": 10}}
        return score((drug + lab, 20), ker_by={"entity_category": leaf})

    assert decide(by(5, 5), by(5, 0)).decision == "keep"
    assert decide(by(5, 5), by(5, 0), priority=["drug"]).decision == "no_change"
    assert decide(by(5, 5), by(5, 0), priority=["drug", "lab"]).decision == "keep"
    some, none = (decide(by(5, 5), by(5, 0), priority=p) for p in (["drug", "role"], ["role"]))
    assert (some.decision, none.decision) == ("no_change", "keep")
    assert "role was scored: going by drug" in some.warnings[0]
    assert "going by all" in none.warnings[0]
    assert decide(score(None), score(None), priority=["drug"]).deltas["metric"] == "wer"
    with pytest.raises(ManifestError, match="Did you mean drug"):
        decide(by(5, 5), by(5, 0), priority=["drugs"])


def real(heard: list[str]) -> Any:
    rows = [{"audio_filepath": f"{i}", "text": "give aspirin now", "term": "aspirin"} for i in range(len(heard))]
    return score_rows(rows, {f"{i}": text for i, text in enumerate(heard)}, bootstrap=100)


def test_the_row_files_give_paired_tests_and_intervals() -> None:
    before, after = real(["give them now"] * 15 + ["give aspirin now"] * 25), real(["give aspirin now"] * 40)
    answer = decide(before.summary, after.summary, rows=(before.rows, after.rows))
    paired = answer.deltas["paired"]
    assert answer.decision == "keep"
    assert (paired["ker"]["fixed"], paired["ker"]["broken"]) == (15, 0)
    assert paired["ker"]["p_value"] == pytest.approx(2 / 2**15)
    assert paired["wer"]["p_value"] < 0.001
    assert paired["wer"]["delta"] == pytest.approx(-15 / 120)
    low, high = answer.deltas["target"]["ci95"]
    assert low < -15 / 40 < high < 0
    assert any("p < 0.001" in reason for reason in answer.reasons)


def test_a_change_that_may_be_chance_is_warned_of() -> None:
    before, after = real(["x", "x", "give aspirin now"]), real(["x", "give aspirin now", "give aspirin now"])
    answer = decide(before.summary, after.summary, rows=(before.rows, after.rows))
    assert answer.decision == "keep"
    assert any("may be chance" in warning for warning in answer.warnings)


def test_without_row_files_the_interval_comes_from_the_two_scores() -> None:
    before, after = real(["x"] * 20 + ["aspirin"] * 20), real(["x"] * 5 + ["aspirin"] * 35)
    answer = decide(before.summary, after.summary)
    low, high = answer.deltas["target"]["ci95"]
    assert low < -15 / 40 < high < 0
    assert "p_value" not in answer.deltas["target"]


def test_rows_that_do_not_pair_up_are_not_compared() -> None:
    one, other = real(["x", "y"]), real(["x"])
    assert compare(one.rows, other.rows) is None
    assert compare([], []) is None
    answer = decide(one.summary, one.summary, rows=(one.rows, other.rows))
    assert any("do not pair up" in warning for warning in answer.warnings)


def test_equal_systems_are_no_change() -> None:
    one = real(["x", "give aspirin now"])
    answer = decide(one.summary, one.summary, rows=(one.rows, one.rows))
    assert answer.decision == "no_change"
    assert answer.deltas["paired"]["wer"]["p_value"] == 1.0


def test_with_priorities_the_paired_test_is_of_their_rows_alone() -> None:
    rows = [
        {
            "audio_filepath": f"{i}",
            "text": "give aspirin",
            "term": "aspirin",
            "entity_category": "drug" if i < 10 else "lab",
        }
        for i in range(20)
    ]
    before = score_rows(rows, {f"{i}": "give it" for i in range(20)}, bootstrap=0)
    after = score_rows(rows, {f"{i}": "give it" if i < 10 else "give aspirin" for i in range(20)}, bootstrap=0)
    both = before.rows, after.rows
    drug = decide(before.summary, after.summary, rows=both, priority=["drug"])
    lab = decide(before.summary, after.summary, rows=both, priority=["lab"])
    assert (drug.decision, drug.deltas["target"]["p_value"]) == ("no_change", 1.0)
    assert (lab.decision, lab.deltas["target"]["p_value"]) == ("keep", pytest.approx(2 / 2**10))
