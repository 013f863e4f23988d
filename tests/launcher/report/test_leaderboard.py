"""The leaderboard: five sections, before and after, and nothing of a user's that could break the table."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from launcher.report.leaderboard import cell, leaderboard, leaderboard_name, rate_text, score_table
from recipes.scoring import decide, score_rows

TERMS = {"aspirin": "drug", "x-ray": "procedure", "a|b*<i>": "lab"}


def scored(missed: dict[str, int], split: str | None = "validation", terms: bool = True) -> dict[str, Any]:
    rows, heard = [], {}
    for term, category in TERMS.items():
        for i in range(4):
            path = f"{term}/{i}.wav"
            row: dict[str, Any] = {"audio_filepath": path, "text": f"give {term} now", "duration": 900.0}
            if terms:
                row |= {"term": term, "entity_category": category, "noise_level": "clean"}
            rows.append(row | ({"split": split} if split else {}))
            heard[path] = "give it now" if i < missed.get(term, 0) else f"give {term} now"
    return score_rows(rows, heard, bootstrap=50).summary


def test_the_five_sections_come_in_order() -> None:
    text = leaderboard(scored({"aspirin": 2}), cycle=3)
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert heads[0] == "# Leaderboard, cycle 3"
    assert [head[3:5] for head in heads[1:6]] == ["1.", "2.", "3.", "4.", "5."]
    assert leaderboard_name(3) == "leaderboard_cycle3.md"


def test_before_and_after_stand_side_by_side_worst_first() -> None:
    text = leaderboard(scored({"aspirin": 1, "x-ray": 2}), scored({"aspirin": 4}))
    rows = [line for line in text.splitlines() if line.startswith(("| drug", "| procedure", "| lab"))]
    assert [row.split(" ")[1] for row in rows] == ["procedure", "drug", "lab"]
    assert "100.0% [51.0–100.0] | 25.0% [4.6–69.9] | 1 / 4" in rows[1]


def test_which_rows_were_scored_is_always_said() -> None:
    assert "validation only (12 rows of validation)" in leaderboard(scored({}))
    assert "kept out of training" in leaderboard(scored({}, split=None))
    trained = leaderboard(scored({}, split="train"))
    assert "not validation-only: 12 of train" in trained
    assert "> **12 rows" in trained


def test_what_was_forgotten_is_shown_or_said_to_be_unknown() -> None:
    before, after = scored({}), scored({"aspirin": 4})
    assert "not scored, so what was forgotten is not known" in leaderboard(after)
    assert "0.0% [0.0–0.0] → " in leaderboard(after, general=after, general_before=before)
    assert "points)" in leaderboard(after, general=after, general_before=before)


def test_the_decision_and_its_reasons_are_in_it() -> None:
    before, after = scored({"aspirin": 4}), scored({})
    text = leaderboard(after, before, decision=decide(before, after).as_json())
    assert "Decision: **keep**" in text


def test_it_works_without_terms() -> None:
    text = leaderboard(scored({"aspirin": 1}, terms=False))
    assert "KER" not in text.split("## 2.")[0].split("## 1.")[1].split("Words:")[0]
    assert text.count("No row has a term") == 4


def test_user_data_cannot_break_a_table() -> None:
    text = leaderboard(scored({"a|b*<i>": 4}))
    row = next(line for line in text.splitlines() if line.startswith("| a\\|b"))
    assert row.startswith("| a\\|b\\*&lt;i&gt; | 100.0%")
    assert cell("a\nb\t c") == "a b c"


def test_number_errors_are_listed_gravest_first() -> None:
    said = {"a": "give ten mg", "b": "give 1.0 mg"}
    rows = [{"audio_filepath": k, "text": v} for k, v in said.items()]
    text = leaderboard(score_rows(rows, {"a": "give 10 mg", "b": "give 10 mg"}, bootstrap=0).summary)
    assert text.index("| tenfold | 1.0 mg | 10 mg | b |") < text.index("| number\\_format | ten mg | 10 mg | a |")


def test_a_rate_without_a_reference_is_not_shown_as_a_percentage() -> None:
    assert rate_text({"errors": 3, "total": 0, "rate": 3.0, "ci95": None}) == "3 errors, no reference"
    assert rate_text(None) == "–"


def test_the_terminal_form_fits_eighty_columns_and_reads_no_markup() -> None:
    before, after = scored({"aspirin": 4}), scored({"a|b*<i>": 1})
    after["ker_by"]["entity_category"]["[red]x"] = {"errors": 0, "total": 1, "rate": 0.0, "ci95": [0.0, 0.8]}
    out = io.StringIO()
    Console(file=out, width=80).print(score_table(after, before, "cycle 1"))
    text = out.getvalue()
    assert "33.3%" in text
    assert "8.3%" in text
    assert "[red]x" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert not any(line.rstrip().endswith("…") for line in text.splitlines())
