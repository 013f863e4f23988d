"""What is kept of what a teacher heard: each rule, the bound of confidence, the best share. No model is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from recipes.manifest import ManifestError, read_manifest, write_manifest
from recipes.pseudo_label.filtering import after_hearing, compression_ratio, longest_repeat, most_confident, plain
from recipes.pseudo_label.heard import Heard, joined
from recipes.pseudo_label.journal import JOURNAL, Journal
from recipes.pseudo_label.report import report_of
from recipes.pseudo_label.sorting import sort_out
from recipes.pseudo_label.sources import sources_of
from recipes.pseudo_label.spec import PseudoLabelSpec


def spec(**settings: Any) -> PseudoLabelSpec:
    return PseudoLabelSpec(**{"model": "teacher.nemo", "manifest": "m"} | settings)


def clip(path: Path, seconds: float = 2.0, rate: int = 16000) -> Path:
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)), rate)
    return path


SENTENCE = "turn on the kitchen lights"


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (Heard(SENTENCE, 5, 0.9), None),
        (Heard(SENTENCE, 5, 0.79), "low_confidence"),
        (Heard("  ", 0, 0.0), "empty"),
        (Heard("yes no yes no yes no yes no Yes, no.", 10, 0.99), "repeats"),
        (Heard("yes no yes no yes no yes no", 8, 0.99), None),
        (Heard("x" * 50, 10, 0.99), "compresses"),
        (Heard("a", 1, 0.99), "characters_per_s"),
        (Heard("What on earth could anybody want to say that is as long as this one is, in two seconds", 9, 0.99),
         "characters_per_s"),
        (Heard(SENTENCE, 5, 0.2, -1.6, 0.7, silent=True), "no_speech"),
        (Heard("", 0, 0.0, fault="torn"), "unreadable"),
    ],
)  # fmt: skip
def test_each_rule_gives_its_reason(heard: Heard, reason: str | None) -> None:
    why = after_hearing(heard, 2.0, spec())
    assert (why[0] if why else None) == reason
    assert why is None or why[1]


def test_loops_are_found_whatever_their_length() -> None:
    assert longest_repeat("so so so so so") == (5, "so")
    assert longest_repeat("a b c a b c a b c d") == (3, "a b c")
    assert longest_repeat("Thank you. Thank you! thank you") == (3, "thank you")
    assert longest_repeat("one two three")[0] == 1
    assert longest_repeat("")[0] == 1
    assert compression_ratio("ha" * 100) > 2.4 > compression_ratio(SENTENCE * 2)


def test_the_best_share_is_rounded_up_and_of_equals_the_earlier_stay() -> None:
    assert most_confident([0.1, 0.9, 0.5, 0.9], 0.5) == {1, 3}
    assert most_confident([0.5, 0.5, 0.5], 0.4) == {0, 1}
    assert most_confident([0.3] * 10, 0.3) == {0, 1, 2}
    assert most_confident([], 0.5) == set()


def test_pieces_are_joined_by_their_tokens_and_silent_ones_are_left_out() -> None:
    both = joined([Heard("a b", 3, 0.9), Heard("c", 1, 0.5)])
    assert (both.text, both.tokens, both.confidence) == ("a b c", 4, pytest.approx(0.8))
    pieces = [Heard("a", 3, 0.5, -0.7, 0.1), Heard("you", 2, 0.1, -2.3, 0.9, True), Heard("b", 1, 0.9, -0.1, 0.2)]
    spoken = joined(pieces)
    assert (spoken.text, spoken.no_speech_prob, spoken.silent) == ("a b", 0.2, False)
    assert spoken.avg_logprob == pytest.approx(-0.55) and spoken.confidence == pytest.approx(np.exp(-0.55))
    silent = joined([pieces[1], pieces[1]])
    assert silent.silent and silent.text == "you you"


def test_the_bound_is_the_kinds_own_unless_another_or_a_share_is_asked_for() -> None:
    assert spec().least_confidence == 0.8
    assert spec(model="aadel4/kid-whisper-small-en-myst").least_confidence == 0.37
    assert spec(keep_fraction=0.5).least_confidence is None
    assert spec(keep_fraction=0.5, min_confidence=0.6).least_confidence == 0.6
    assert spec(model="my/whisper-copy", teacher_kind="nemo").kind == "nemo"
    for wrong in ({"keep_fraction": 0}, {"min_clip_s": 30}, {"language": "en"}, {"min_confidence": "high"}):
        with pytest.raises(ValidationError):
            spec(**wrong)


def test_a_folder_or_a_manifest_is_sorted_into_kept_and_filtered_rows(tmp_path: Path) -> None:
    for name in ("sure.wav", "unsure.wav", "surer.flac"):
        clip(tmp_path / name)
    clip(tmp_path / "short.wav", 0.2)
    clip(tmp_path / "long.wav", 21, 8000)
    (tmp_path / "torn.mp3").write_text("no audio")
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / ".hidden.wav").write_text("no audio")
    sources = sources_of(tmp_path)
    assert [Path(source.row["audio_filepath"]).name for source in sources] == sorted(
        ["sure.wav", "unsure.wav", "surer.flac", "short.wav", "long.wav", "torn.mp3"]
    )
    sure = {"sure.wav": 0.9, "unsure.wav": 0.6, "surer.flac": 0.95}
    heard = {
        source.key: Heard("Turn on, the lights.", 4, sure[source.clip.path.name])
        for source in sources
        if source.clip and source.clip.path.name in sure
    }
    found = sort_out(sources, heard, spec(text_style="plain"))
    assert [(Path(row["audio_filepath"]).name, row["text"], row["confidence"]) for row in found.labelled] == [
        ("sure.wav", "turn on the lights", 0.9), ("surer.flac", "turn on the lights", 0.95),
    ]  # fmt: skip
    assert all(row["duration"] == 2.0 and row["teacher"] == "teacher.nemo" for row in found.labelled)
    assert {Path(row["audio_filepath"]).name: row["reason"] for row in found.filtered} == {
        "long.wav": "too_long", "short.wav": "too_short", "torn.mp3": "unreadable", "unsure.wav": "low_confidence",
    }  # fmt: skip
    found.write(tmp_path)
    assert len(read_manifest(tmp_path / "labelled.jsonl")) == 2
    told = report_of(found, spec())
    assert (told["rows"], told["kept"], told["unheard"]) == (6, 2, 0)
    assert {each["min_confidence"]: each["rows"] for each in told["at_bound"]}[0.6] == 3
    half = sort_out(sources, heard, spec(keep_fraction=0.5))
    assert [Path(row["audio_filepath"]).name for row in half.labelled] == ["sure.wav", "surer.flac"]
    assert "less_confident" in {row["reason"] for row in half.filtered}
    assert sort_out(sources, {}, spec()).unheard == 3


def test_a_manifests_own_fields_stay_and_a_text_it_had_is_kept_beside(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav", 6)
    rows = [
        {"audio_filepath": "a.wav", "text": "old words", "voice_id": "v1"},
        {"audio_filepath": "a.wav", "offset": 2.0, "duration": 3.0},
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    sources = sources_of(tmp_path / "m.jsonl")
    heard = {source.key: Heard("new words", 2, 0.9) for source in sources}
    found = sort_out(sources, heard, spec(teacher_name="Ms T")).labelled
    assert found[0] == {
        "audio_filepath": str(tmp_path / "a.wav"), "text": "new words", "text_before": "old words", "voice_id": "v1",
        "duration": 6.0, "confidence": 0.9, "teacher": "Ms T",
    }  # fmt: skip
    assert (found[1]["offset"], found[1]["duration"], "text_before" in found[1]) == (2.0, 3.0, False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no rows: there is nothing to label"),
        ('{"audio": "a.wav"}', ":1  audio_filepath: missing"),
        ('{"audio_filepath": "a.wav", "offset": "x"}', ":1  offset: expected seconds"),
        ('{"audio_filepath": "a.wav"}\n{"audio_filepath": "./a.wav"}', ":2  audio_filepath: ./a.wav is already"),
    ],
)
def test_a_wrong_manifest_is_named_by_line(tmp_path: Path, line: str, says: str) -> None:
    clip(tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(ManifestError) as caught:
        sources_of(tmp_path / "m.jsonl")
    assert says in str(caught.value)


def test_the_journal_survives_a_torn_line_and_begins_anew_for_another_teacher(tmp_path: Path) -> None:
    first = Journal(tmp_path, {"model": "a"})
    first.add([("x", Heard("one", 1, 0.5)), ("y", Heard("two", 1, 0.6, -0.5, 0.1))])
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(json.dumps({"key": "z", **Heard("three", 1, 0.7).as_json()})[:20])
    second = Journal(tmp_path, {"model": "a"})
    assert second.heard == first.heard and not second.of_another
    second.add([("z", Heard("three", 1, 0.7))])
    assert set(Journal(tmp_path, {"model": "a"}).heard) == {"x", "y", "z"}
    other = Journal(tmp_path, {"model": "b"})
    assert other.of_another and not other.heard
    assert not Journal(tmp_path, {"model": "b"}).of_another


def test_plain_is_what_a_lower_case_tokenizer_can_spell() -> None:
    said = "Well — it's the X-ray's 5 mg, \"isn't\" it? [laughs]"
    assert plain(said) == "well it's the x-ray's 5 mg isn't it laughs"
