"""The clinical and NVIDIA readings of a transcript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.scoring import clinical, hit, normaliser, nvidia

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "scoring_vectors.json").read_text(encoding="utf-8")
)["cases"]

TRICKY = st.text(
    alphabet=st.sampled_from("ab1250 .,/:-−'’½⅓⁄°c%+<>^x²⁹m gμ_$`\u0301\u093fह漢ガ\u3099ßéİ\u00a0٣"),
    max_size=14,
)


@pytest.mark.parametrize("case", VECTORS, ids=lambda c: f"{c['term']}|{c['hyp']}")
def test_every_given_vector_holds(case: dict[str, Any]) -> None:
    assert hit(case["term"], case["hyp"], "clinical") is case["hit"]


@pytest.mark.parametrize(
    ("term", "hyp", "recognised"),
    [
        # by value
        ("2.50 mg", "give 2.5 mg", True), ("1.0 mg", "give 1 mg", True), ("05 mg", "give 5 mg", True),
        ("5 mg", "give 0.5 mg", False), ("5 mg", "give 5.5 mg", False), ("0.05 mg", "give 0.5 mg", False),
        ("100 mg", "give 10 mg", False), ("1.5 mg", "give 15 mg", False), ("1.5 mg", "give 1 5 mg", False),
        ("5 mg", "we waited...5 mg", True), ("5 mg", "give 5 mg.", True),
        # group marks and decimal commas
        ("1,000,000 units", "give 1000000 units", True), ("10,5 ml", "give 10.5 ml", True),
        ("10,5 ml", "give 105 ml", False), ("0,125 mg", "give 0.125 mg", True),
        ("1.000 mg", "give 1 mg", True),
        ("1.000 mg", "give 1000 mg", False), ("1.000.000 units", "give 1000000 units", True),
        ("1 000 units", "give 1 units", False),
        ("10 000 units", "give 10,000 units", True),
        ("1 050 000 units", "give 1050000 units", True),
        ("10 100 units", "give 10100 units", False), ("1\u00a0000 units", "give 1000 units", True),
        ("1'000 units", "give 1000 units", True), ("1,2,3", "lines 1 2 3 here", True),
        # fractions
        ("¼ tablet", "take ¼ tablet", True), ("¼ tablet", "take 14 tablet", False),
        ("½ tablet", "take 1/2 tablet", True), ("½ tablet", "take 0.5 tablet", True),
        ("½ tablet", "take 1½ tablet", False), ("1½ tablets", "take 1 1/2 tablets", True),
        ("1½ tablets", "take 1.5 tablets", True), ("1½ tablets", "take 11/2 tablets", False),
        ("⅔ cup", "a ⅔ cup", True), ("⅔ cup", "a 23 cup", False), ("⅓ cup", "a ⅔ cup", False),
        ("120/80", "pressure 120/80 today", True), ("120/80", "pressure 12080", False),
        ("120/80", "pressure 60/40", False), ("2/4", "strength 1/2", False), ("10:30", "at 1030", False),
        # powers, signs, comparison
        ("10⁹", "about 109 cells", False), ("10⁹", "about 10^9 cells", True), ("m²", "per m2 of skin", True),
        ("−5", "base excess 5", False), ("-5", "base excess −5", True), ("5 mg", "range 2-5 mg", True),
        ("10 mg", "5–10 mg", True), ("<5", "value >5", False), ("≥ 3", "value >=3", True),
        # units
        ("5mg/ml", "a 5 mg/ml vial", True), ("5 mg/ml", "a 5 mg ml vial", True),
        ("50 µg", "give 50 μg", True),
        ("50 µg", "give 50 mcg", True), ("50 mcg", "give 50 mg", False), ("37 °C", "it is 37°C", True),
        ("37 ℃", "it is 37 °c", True), ("5%", "dextrose 5 %", True), ("5%", "dextrose 5", False),
        ("10 MG", "give 10 mg", True), ("10 mg", "give １０ｍｇ", True), ("10 mg", "give १० mg", True),
        # words
        ("X-Ray", "an x–ray", True), ("x ray", "an x-ray", True), ("HbA1c", "her hba1c is", True),
        ("HbA1c", "her hba 1 c is", False), ("COVID-19", "covid 19 test", True), ("A+", "type A", False),
        ("ﬁbrosis", "lung fibrosis", True), ("oedema", "œdema", True), ("STRASSE", "Straße", True),
        ("ılık", "ILIK", True), ("İzmir", "izmir", True), ("Ménière's disease", "Meniere’s disease", True),
        ("Crohn's disease", "crohn disease", True), ("Crohn’s disease", "crohns disease", True),
        ("insuline", "prendre l’insuline", True), ("don't", "dont stop", True),
        ("and/or", "and or", True), ("metoprolol", "metoprolols", False), ("_", "", False),
        # other scripts keep their marks
        ("हिन्दी", "वह हिन्दी बोलता है", True), ("हिन्दी", "वह हन्द बोलता है", False),
        ("и", "й", False), ("ещё", "еще раз", True), ("胰岛素", "给予胰岛素治疗", True), ("が", "か", False),
        ("أنسولين", "خذ أنسولين", True), ("---", "anything", None), ("…", "anything", None),
    ],
)  # fmt: skip
def test_unseen_cases_of_the_same_rules(term: str, hyp: str, recognised: bool | None) -> None:
    assert hit(term, hyp) is recognised


@given(TRICKY)
def test_clinical_is_idempotent_on_what_it_treats_specially(text: str) -> None:
    assert clinical(clinical(text)) == clinical(text)


@given(st.text())
def test_clinical_is_idempotent_on_any_text(text: str) -> None:
    assert clinical(clinical(text)) == clinical(text)


@given(TRICKY, TRICKY, TRICKY)
def test_a_term_said_as_written_is_always_recognised(before: str, term: str, after: str) -> None:
    assert hit(term, term) is not False
    if not any(c.isdigit() or c in "½⅓٣²⁹" for c in before + after + term):  # numbers may join: 1 and 1/2 are 1.5
        spaced = f"{before} , {term} , {after}"
        assert hit(term, spaced) is not False or "°" in before + term + after


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_the_short_cut_for_plain_prose_reads_as_the_long_way_does(text: str) -> None:
    assert clinical(text) == clinical(text + " \u3000").strip()


def test_nvidia_mode_keeps_its_documented_defects() -> None:
    assert hit("1.0 mg", "give 10 mg now", "nvidia") is True
    assert hit("", "anything", "nvidia") is True
    assert hit("x-ray", "take an x ray", "nvidia") is False
    assert nvidia("½ tablet") == "12 tablet"
    assert nvidia("stage two–three") == "stage twothree"
    assert nvidia("  Naïve\tT-Cell, ") == "naive t-cell"


def test_plain_mode_changes_nothing_but_white_space() -> None:
    assert normaliser("plain")(" Give  1.0 mg,\nnow. ") == "Give 1.0 mg, now."


def test_an_unknown_mode_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="clinical, nvidia, plain"):
        normaliser("clinic")
