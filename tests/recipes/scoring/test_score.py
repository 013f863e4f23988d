"""Scores of whole sets: jiwer's numbers, NVIDIA's numbers, groups, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.manifest import ManifestError
from recipes.scoring import Score, score_rows


def scored(said: list[str], heard: list[str], mode: str = "clinical", **fields: list[Any]) -> Score:
    rows: list[dict[str, Any]] = [{"audio_filepath": f"{i}.wav", "text": text} for i, text in enumerate(said)]
    for key, values in fields.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return score_rows(rows, {f"{i}.wav": text for i, text in enumerate(heard)}, mode, bootstrap=0)


# The pairs of jiwer's own tests (measures, CER, empty references, error counts, alignments, vocabulary).
JIWER_CASES: list[tuple[list[str], list[str]]] = [
    (["This is a test"], ["This is a test"]),
    (["This is a test"], [""]),
    (["This is a test"], ["This test"]),
    (["X"], ["X"]), (["X"], ["X X Y Y"]), (["X Y X"], ["X Z"]), (["X"], ["Y"]), (["X"], ["Y Z"]),
    (["i", "am i good"], ["i am", "i good"]),
    (["am i good", "i"], ["i good", "i am"]),
    (["i am a short ground truth"], ["i am a considerably longer and very much incorrect hypothesis"]),
    (["i like monthy python what do you mean african or european swallow"],
     ["i like python what you mean or swallow"]),
    *[([""] * i, [""] * i) for i in range(1, 10)],
    ([""], ["hello"]),
    *[([""], [" ".join(map(str, range(i)))]) for i in range(2, 11)],
    (["hello"], [""]),
    (["hello world", ""], ["hello world", "done"]),
    (["hello world", ""], ["hello world", ""]),
    ([""], ["a"]), ([""], ["abd"]), (["a"], [""]), (["abc"], [""]),
    (["sub"] * 5 + ["this was", "del", "hit"], ["bus", "bus", "bus", "usb", "bsu", "this was ins", "",
    "hit"]),
    (["same"] * 50 + ["ref_only"] * 50, ["same"] * 50 + ["hyp_only"] * 50),
    (["this is a test"], ["this was test"]),
    (["this is a speed test"] * 10, ["this is not a speed test"] * 10),
    ([f"word{i}" for i in range(500)], [f"word{i}" for i in range(500, 1000)]),
    (["a" * i for i in range(1, 101)], ["b" * i for i in range(1, 101)]),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["clinical", "nvidia", "plain"])
@pytest.mark.parametrize(("said", "heard"), JIWER_CASES)
def test_micro_rates_and_counts_agree_with_jiwer_on_its_own_cases(
    said: list[str], heard: list[str], mode: str
) -> None:
    ours = scored(said, heard, mode).summary
    words, chars = jiwer.process_words(said, heard), jiwer.process_characters(said, heard)
    assert ours["micro"]["wer"]["rate"] == pytest.approx(words.wer, abs=1e-15)
    assert ours["micro"]["cer"]["rate"] == pytest.approx(chars.cer, abs=1e-15)
    assert ours["edits"] == {
        "substitutions": words.substitutions, "deletions": words.deletions,
        "insertions": words.insertions, "hits": words.hits,
    }  # fmt: skip


WORDS = st.lists(st.sampled_from(["a", "b", "cc", "dd", "e"]), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8)


@given(PAIRS)
def test_micro_rates_equal_jiwers_on_any_rows(pairs: list[tuple[str, str]]) -> None:
    said, heard = [a for a, _ in pairs], [b for _, b in pairs]
    ours = scored(said, heard).summary
    assert ours["micro"]["wer"]["rate"] == pytest.approx(jiwer.wer(said, heard))
    assert ours["micro"]["cer"]["rate"] == pytest.approx(jiwer.cer(said, heard))


@settings(max_examples=30)
@given(PAIRS, st.randoms(use_true_random=False))
def test_no_number_depends_on_the_order_of_rows(pairs: list[tuple[str, str]], draw: Any) -> None:
    rows = [
        {"audio_filepath": f"{i}.wav", "text": a, "term": a.split(" ")[0], "entity_category": "drug"}
        for i, (a, _) in enumerate(pairs)
    ]
    heard = {f"{i}.wav": b for i, (_, b) in enumerate(pairs)}
    shuffled = list(rows)
    draw.shuffle(shuffled)
    one = score_rows(rows, heard, bootstrap=50).summary
    other = score_rows(shuffled, heard, bootstrap=50).summary
    for key in ("micro", "macro", "ker_by", "edits", "nvidia_ker", "rows_sha256"):
        assert one[key] == other[key]


@given(PAIRS)
def test_ker_and_ser_are_proportions(pairs: list[tuple[str, str]]) -> None:
    said, heard = [a for a, _ in pairs], [b for _, b in pairs]
    ours = scored(said, heard, term=[a or "x" for a in said]).summary["macro"]
    for name in ("ker", "ser"):
        assert 0 <= ours[name]["ci95"][0] <= ours[name]["rate"] <= ours[name]["ci95"][1] <= 1
    assert ours["ser"]["rate"] == sum(a != b for a, b in pairs) / len(pairs)


def test_nvidia_mode_is_the_mean_of_per_row_scores() -> None:
    ours = scored(
        ["Give 1.0 mg, now", "an x-ray"], ["give 10 mg now", "an x ray"], "nvidia", term=["1.0 mg", "x-ray"]
    ).summary["macro"]
    assert ours["wer"]["rate"] == (0 + 2 / 2) / 2
    assert ours["cer"]["rate"] == (0 + 1 / 8) / 2
    assert ours["ker"] == {"errors": 1, "total": 2, "rate": 0.5, "ci95": ours["ker"]["ci95"]}
    assert ours["ser"]["rate"] == 0.5


def test_a_tenfold_dose_is_a_miss_in_clinical_mode_and_invisible_in_nvidia_mode() -> None:
    ours = scored(["give 1.0 mg now"], ["give 10 mg now"], term=["1.0 mg"]).summary
    assert (ours["macro"]["ker"]["errors"], ours["nvidia_ker"]["errors"]) == (1, 0)
    assert ours["micro"]["wer"]["errors"] == 1
    for mode in ("clinical", "nvidia", "plain"):
        listed = scored(["give 1.0 mg now"], ["give 10 mg now"], mode).summary["number_errors"]
        assert listed == [
            {"audio_filepath": "0.wav", "reference": "1.0 mg", "hypothesis": "10 mg", "kind": "tenfold"}
        ]


def test_a_spoken_number_for_a_written_one_is_a_miss_and_listed_under_number_format() -> None:
    ours = scored(["give ten milligrams"], ["give 10 mg"], term=["ten milligrams"]).summary
    assert ours["macro"]["ker"]["rate"] == 1
    assert [e["kind"] for e in ours["number_errors"]] == ["number_format"]


def test_a_missed_term_in_another_number_form_is_listed_even_where_the_text_lacks_it() -> None:
    ours = scored([""], ["10 mg"], term=["ten milligrams"]).summary
    assert {"reference": "ten milligrams", "hypothesis": "10 mg", "kind": "number_format"}.items() <= ours[
        "number_errors"
    ][-1].items()


def test_an_empty_term_is_left_out_with_a_warning_and_a_hit_in_nvidia_mode() -> None:
    said = {"said": ["a b", "c"], "heard": ["a b", "d"], "term": ["", "c"]}
    clinical, nvidia = scored(**said), scored(**said, mode="nvidia")
    assert clinical.summary["macro"]["ker"]["total"] == 1
    assert clinical.rows[0]["ker"] is None
    assert "empty term in 1 row (0.wav): left out" in clinical.summary["warnings"][0]
    assert (nvidia.summary["macro"]["ker"]["errors"], nvidia.summary["macro"]["ker"]["total"]) == (1, 2)
    assert "counted as recognised" in nvidia.summary["warnings"][0]


def test_without_terms_ker_is_null_and_its_groups_are_empty() -> None:
    ours = scored(["a b"], ["a c"], entity_category=["drug"]).summary
    assert ours["macro"]["ker"] is None
    assert ours["nvidia_ker"] is None
    assert ours["ker_by"] == {"entity_category": {}, "ipa_source": {}, "noise_level": {}, "term": {}}
    assert ours["micro"]["wer"]["rate"] == 0.5


def test_ker_is_grouped_by_category_source_noise_and_term() -> None:
    ours = scored(
        ["a b", "a c", "d"], ["a b", "x", "d"], term=["a", "a", "d"], entity_category=["drug", "drug", "lab"],
        ipa_source=["override", "magpie_g2p", "override"], noise_level=["clean", "snr_5db", "clean"],
    ).summary["ker_by"]  # fmt: skip
    rates = {group: {name: leaf["rate"] for name, leaf in leaves.items()} for group, leaves in ours.items()}
    assert rates == {
        "entity_category": {"drug": 0.5, "lab": 0.0},
        "ipa_source": {"override": 0.0, "magpie_g2p": 1.0},
        "noise_level": {"clean": 0.0, "snr_5db": 1.0},
        "term": {"a": 0.5, "d": 0.0},
    }


@pytest.mark.parametrize(
    ("said", "heard", "wer", "cer"),
    [("", "", 0, 0), ("", "one two three", 3, 13), ("a b", "", 1, 1), ("!", "x", 1, 1)],
)
def test_an_empty_reference_counts_its_insertions_as_jiwer_does(
    said: str, heard: str, wer: float, cer: float
) -> None:
    ours = scored([said], [heard])
    assert (ours.summary["micro"]["wer"]["rate"], ours.summary["micro"]["cer"]["rate"]) == (wer, cer)
    assert (ours.rows[0]["wer"], ours.rows[0]["cer"]) == (wer, cer)
    assert any("empty reference" in w for w in ours.summary["warnings"]) is (said in ("", "!"))
    assert (
        score_rows([{"audio_filepath": "0.wav", "text": said}], {"0.wav": heard}).summary["micro"]["wer"]["rate"]
        == wer
    )  # the bootstrap does not trip over it either


def test_every_leaf_has_the_four_fields_of_the_contract() -> None:
    rows = [{"audio_filepath": f"{i}", "text": "a b", "term": "a", "entity_category": "lab"} for i in range(4)]
    ours = score_rows(rows, {f"{i}": "a c" if i else "a b" for i in range(4)}).as_json()
    leaves = [*ours["micro"].values(), *ours["macro"].values(), *ours["ker_by"]["term"].values()]
    for leaf in leaves:
        assert {"errors", "total", "rate", "ci95"} <= set(leaf)
        assert leaf["ci95"][0] <= leaf["rate"] <= leaf["ci95"][1]
        assert leaf["rate"] == pytest.approx(leaf["errors"] / leaf["total"])


def test_training_rows_among_those_scored_are_warned_of() -> None:
    rows = [{"audio_filepath": "a", "text": "x"}, {"audio_filepath": "b", "text": "x", "split": "train"}]
    by_path = score_rows(rows[:1], {"a": "x"}, training=["a"]).summary["warnings"]
    by_field = score_rows(rows, {"a": "x", "b": "x"}).summary["warnings"]
    assert "not validation-only" in by_path[0]
    assert "(b)" in by_field[0]
    assert not score_rows(rows[:1], {"a": "x"}, training=["c"]).summary["warnings"]


@pytest.mark.parametrize(
    ("rows", "heard", "said"),
    [
        ([{"audio_filepath": "a", "text": "x"}], {}, "no hypothesis for a"),
        ([{"audio_filepath": "a", "text": "x"}], {"a": "x", "b": "y"}, "no reference for b"),
        ([{"audio_filepath": "a", "text": "x"}] * 2, {"a": "x"}, "twice"),
        ([{"audio_filepath": "a", "text": None}], {"a": "x"}, "found null"),
        ([{"audio_filepath": "a"}], {"a": "x"}, "missing"),
        ([{"text": "x"}], {"a": "x"}, "audio_filepath"),
        ([{"audio_filepath": "a", "text": "x", "term": ["x"]}], {"a": "x"}, "expected text"),
        ([{"audio_filepath": "a", "text": "x"}], {"a": None}, "expected text"),
    ],
)
def test_rows_that_do_not_match_are_refused(rows: list[Any], heard: Any, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        score_rows(rows, heard)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    rows = [{"audio_filepath": f"{i}", "text": "a b c"} for i in range(20)]
    heard = dict(zip((r["audio_filepath"] for r in rows), itertools.cycle(["a b c", "a x", "b"]), strict=False))
    one, same, other = (score_rows(rows, heard, seed=s).summary["micro"]["wer"]["ci95"] for s in (1, 1, 2))
    assert one == same != other
