"""The gate before a cycle, on and around every threshold."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.manifest import ManifestError
from recipes.scoring import gate

Rows = list[dict[str, Any]]


def rows(count: int, missed: int, category: str = "drug", start: int = 0, **fields: Any) -> Rows:
    """`count` rows of which the first `missed` do not hold their term."""
    return [
        {"audio_filepath": f"{category}{start + i}.wav", "text": "give aspirin now", "term": "aspirin",
         "pred_text": "give them now" if i < missed else "give aspirin now", "entity_category": category,
         **fields}
        for i in range(count)
    ]  # fmt: skip


def decided(scored: Rows, priority: tuple[str, ...] = ("drug",), cycle: int = 1) -> str:
    return gate(scored, scored, priority, cycle).decision


@pytest.mark.parametrize(
    ("missed", "cycle", "decision"),
    [
        (100, 1, "tune"), (31, 1, "tune"), (30, 1, "expand"), (30, 2, "tune"), (29, 1, "expand"),
        (11, 2, "tune"), (10, 1, "expand"), (10, 2, "tune"), (9, 1, "harden"), (9, 2, "harden"),
        (0, 1, "harden"),
    ],
)  # fmt: skip
def test_the_thresholds_by_keywords(missed: int, cycle: int, decision: str) -> None:
    assert decided(rows(100, missed), cycle=cycle) == decision


@pytest.mark.parametrize(("total", "decision"), [(99, "grow"), (100, "tune")])
def test_fewer_than_a_hundred_rows_is_too_few(total: int, decision: str) -> None:
    assert decided(rows(total, total)) == decision


@pytest.mark.parametrize(("few", "decision"), [(4, "grow"), (5, "tune"), (0, "grow")])
def test_fewer_than_five_rows_of_a_priority_category_is_too_few(few: int, decision: str) -> None:
    scored = rows(100, 100) + rows(few, few, "procedure")
    assert decided(scored, ("drug", "procedure")) == decision
    assert decided(scored, ("drug",)) == "tune"


def test_only_priority_categories_count() -> None:
    scored = rows(60, 60) + rows(60, 0, "lab")
    assert decided(scored, ("drug",)) == "tune"
    assert decided(scored, ("lab",)) == "harden"
    assert decided(scored, ()) == "tune"  # 60 of 120
    assert decided(rows(20, 20) + rows(80, 0, "lab"), ()) == "expand"  # 20 of 100


def test_a_category_hidden_in_the_average_is_pointed_out() -> None:
    answer = gate(*[rows(20, 20) + rows(80, 0, "lab")] * 2)
    assert any("--priority drug" in reason for reason in answer.reasons)


@pytest.mark.parametrize(
    ("easy", "hard", "decision"),
    [(4, 16, "fix_pronunciation"), (5, 16, "tune"), (4, 15, "expand"), (0, 50, "fix_pronunciation")],
)
def test_bad_pronunciations_are_never_tuned_on(easy: int, hard: int, decision: str) -> None:
    scored = rows(50, easy, ipa_source="merriam-webster") + rows(50, hard, start=50, ipa_source="magpie_g2p")
    cycle = 2 if decision == "tune" else 1
    assert decided(scored, cycle=cycle) == decision


def test_too_few_rows_comes_before_pronunciations() -> None:
    scored = rows(40, 0, ipa_source="merriam-webster") + rows(40, 40, start=40, ipa_source="magpie_g2p")
    assert decided(scored) == "grow"


def test_the_thresholds_are_taken_in_nvidia_mode_with_the_clinical_number_beside() -> None:
    scored = rows(100, 0)
    for row in scored:
        row.update(text="give 1.0 mg", term="1.0 mg", pred_text="give 10 mg")
    answer = gate(scored, scored, ["drug"])
    assert answer.decision == "harden"
    assert answer.numbers["ker_nvidia"]["rate"] == 0
    assert answer.numbers["ker_clinical"]["rate"] == 1
    assert "clinical mode 100.0%" in answer.reasons[0]


@pytest.mark.parametrize(
    ("wrong", "cycle", "decision"),
    [(31, 1, "tune"), (30, 1, "expand"), (30, 2, "tune"), (10, 1, "expand"), (9, 1, "harden")],
)
def test_without_terms_the_same_thresholds_go_by_wer(wrong: int, cycle: int, decision: str) -> None:
    scored = [
        {"audio_filepath": f"{i}", "text": "one", "pred_text": "two" if i < wrong else "one"} for i in range(100)
    ]
    answer = gate(scored, scored, cycle=cycle)
    assert (answer.decision, answer.numbers["metric"]) == (decision, "wer")


def test_rows_are_counted_in_the_manifest_and_scored_in_its_held_out_part() -> None:
    manifest = rows(120, 60)
    answer = gate(manifest, manifest[:40], ["drug"])
    assert answer.decision == "tune"
    assert (answer.numbers["rows"], answer.numbers["scored_rows"]) == (120, 40)


def test_a_row_file_without_transcripts_goes_by_the_kers_it_states() -> None:
    manifest = rows(100, 0)
    stated = [
        {"audio_filepath": r["audio_filepath"], "ker": 1, "ker_nvidia": int(i < 31)} for i, r in enumerate(manifest)
    ]
    answer = gate([{k: v for k, v in r.items() if k != "pred_text"} for r in manifest], stated, ["drug"])
    assert answer.decision == "tune"
    assert answer.numbers["ker_nvidia"]["errors"] == 31


def test_a_baseline_of_other_rows_is_refused() -> None:
    with pytest.raises(ManifestError, match="not in the manifest"):
        gate(rows(100, 0), rows(1, 0, "lab"))


def test_a_misspelt_category_is_refused_with_the_nearest() -> None:
    with pytest.raises(ManifestError, match="Did you mean drug"):
        gate(rows(100, 50), rows(100, 50), ["drugs"])


def test_a_baseline_that_holds_nothing_of_the_priority_says_so() -> None:
    manifest = rows(100, 0) + rows(10, 0, "lab")
    answer = gate(manifest, manifest[:100], ["lab"])
    assert answer.decision == "grow"
    assert "score more rows" in answer.reasons[0]
