"""Errors in numbers and units, listed on their own."""

from __future__ import annotations

import pytest

from recipes.scoring import clinical
from recipes.scoring.quantities import as_written, numbers_wrong, quantities


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("give 1.0 mg now", "give 10 mg now", [("1.0 mg", "10 mg", "tenfold")]),
        ("give 0.5 ml", "give 5 ml", [("0.5 ml", "5 ml", "tenfold")]),
        ("give 15 mg", "give 50 mg", [("15 mg", "50 mg", "value")]),
        ("give 50 mcg", "give 50 mg", [("50 mcg", "50 mg", "unit")]),
        ("give 5 mg", "give mg", [("5 mg", "", "missing")]),
        ("give it now", "give 5 mg now", [("", "5 mg", "added")]),
        ("give ten milligrams", "give 10 mg", [("ten milligrams", "10 mg", "number_format")]),
        ("give 10 mg", "give ten milligrams", [("10 mg", "ten milligrams", "number_format")]),
        ("two point five milliliters", "2.5 ml", [("two point five milliliters", "2.5 ml", "number_format")]),
        ("half a tablet", "½ tablet", [("half a tablet", "½ tablet", "number_format")]),
        ("one hundred and twenty units", "120 units", [("one hundred and twenty units", "120 units",
        "number_format")]),
        ("fifteen mg", "fifty mg", [("fifteen mg", "fifty mg", "value")]),
        ("no one came", "no won came", []),
        ("give 1,000 units", "give 1000 units", []),
        ("give it now", "give them now", []),
        ("5 mg then 10 ml", "10 ml", [("5 mg", "", "missing")]),
        ("in 5 hours", "in 5 10", [("5 hours", "5", "unit"), ("", "10", "added")]),
    ],
)  # fmt: skip
def test_number_and_unit_errors_are_named(said: str, heard: str, errors: list[tuple[str, str, str]]) -> None:
    assert numbers_wrong(said, heard) == errors


def test_said_and_heard_words_come_back_as_they_were_written() -> None:
    assert numbers_wrong("Give 1,000.0 µg, now.", "give 100 mcg now") == [("1,000.0 µg", "100 mcg", "tenfold")]


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("twenty five", "25"), ("one two three", "1 2 3"), ("a hundred and five", "105"),
        ("three hundred thousand", "300000"), ("two million five hundred", "2000500"), ("point five", "0.5"),
        ("zero point zero five milligrams", "0.05 mg"), ("two and a half hours", "2.5 h"),
        ("three quarters", "0.75"), ("thirty seven degrees celsius", "37 °c"), ("twenty twenty", "20 20"),
        ("a point", "a point"), ("hundred", "hundred"), ("minus 5", "minus 5"),
        ("5 million units", "5000000 unit"),
    ],
)  # fmt: skip
def test_spoken_english_numbers_are_understood(spoken: str, written: str) -> None:
    assert as_written(clinical(spoken).split()) == written


def test_what_is_not_one_number_keeps_its_form() -> None:
    assert [q.value for q in quantities(clinical("120/80 at 10:30, 1.2.3, 2+ and 1st").split())] == [
        "120/80", "10:30", "1.2.3", "2+", "1st",
    ]  # fmt: skip
