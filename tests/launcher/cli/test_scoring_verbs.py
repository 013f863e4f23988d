"""`launcher score`, `gate` and `decide`, as a person and as a script call them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def manifest(count: int = 100, terms: bool = True) -> Rows:
    return [
        {"audio_filepath": f"{i}.wav", "text": "give 1.0 mg aspirin", "duration": 2.0}
        | ({"term": "1.0 mg", "entity_category": "drug", "ipa_source": "override"} if terms else {})
        for i in range(count)
    ]


def heard(count: int = 100, missed: int = 0) -> Rows:
    return [
        {"audio_filepath": f"{i}.wav", "pred_text": "give a aspirin" if i < missed else "give 1.0 mg aspirin"}
        for i in range(count)
    ]


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, Any, str]:
    code = main([*args, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    return [write(tmp_path / "ref.jsonl", manifest()), write(tmp_path / "hyp.jsonl", heard(missed=40))]


def test_score_answers_with_the_fields_of_the_contract(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, answer, _ = call(capsys, "score", *pair)
    assert code == 0
    assert set(answer["micro"]) == {"wer", "cer"}
    assert set(answer["macro"]) == {"wer", "cer", "ker", "ser"}
    assert set(answer["ker_by"]) == {"entity_category", "ipa_source", "noise_level", "term"}
    assert answer["warnings"] == []
    assert answer["macro"]["ker"] == {
        "errors": 40,
        "total": 100,
        "rate": 0.4,
        "ci95": pytest.approx([0.309, 0.498], abs=1e-3),
    }
    assert answer["hours"] == pytest.approx(200 / 3600, abs=1e-5)


def test_score_writes_the_row_files_that_gate_and_decide_read(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    assert main(["score", *pair, "--out", str(before)]) == 0
    better = write(tmp_path / "better.jsonl", heard(missed=2))
    assert main(["score", pair[0], better, "--out", str(after)]) == 0
    assert {p.name for p in before.iterdir()} == {
        "score.json",
        "per_sample.json",
        "results.csv",
        "offline_hyps.jsonl",
    }
    with (before / "results.csv").open(encoding="utf-8") as file:
        assert sum(int(row["ker"]) for row in csv.DictReader(file)) == 40
    capsys.readouterr()
    code, answer, _ = call(
        capsys, "gate", pair[0], "--baseline", str(before / "per_sample.json"), "--priority", "drug"
    )
    assert (code, answer["decision"]) == (0, "tune")
    assert answer["reasons"]
    assert answer["numbers"]["ker_nvidia"]["rate"] == 0.4
    for left, right in ((before, after), (before / "score.json", after / "score.json")):
        code, answer, err = call(capsys, "decide", str(left), str(right))
        assert (code, answer["decision"]) == (0, "keep")
        assert answer["deltas"]["target"]["relative"] == pytest.approx(-0.95)
        assert answer["deltas"]["paired"]["ker"]["p_value"] < 1e-9
        assert "no general set" in err


def test_decide_rejects_a_model_that_gained_and_forgot(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = write(tmp_path / "better.jsonl", heard())
    for name, hypotheses in (("before", pair[1]), ("after", better), ("ga", pair[1]), ("gb", better)):
        assert main(["score", pair[0], hypotheses, "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    paths = [str(tmp_path / name) for name in ("before", "after", "gb", "ga")]
    general = ["--general-before", paths[2], "--general-after", paths[3]]
    code, answer, _ = call(capsys, "decide", *paths[:2], *general)
    assert (code, answer["decision"]) == (0, "reject_forgets")
    assert answer["deltas"]["general_wer"]["absolute"] == pytest.approx(0.2)
    _, answer, _ = call(capsys, "decide", *paths[:2], *general, "--max-general-rise", "0.2")
    assert answer["decision"] == "keep"


@pytest.mark.parametrize(
    ("count", "missed", "cycle", "code", "decision"),
    [(100, 31, "1", 0, "tune"), (100, 30, "1", 7, "expand"), (100, 30, "2", 0, "tune"), (100, 9, "1", 7, "harden"),
     (99, 99, "1", 7, "grow")],
)  # fmt: skip
def test_gate_exits_seven_unless_tune(
    count: int, missed: int, cycle: str, code: int, decision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**row, "pred_text": said["pred_text"]}
        for row, said in zip(manifest(count), heard(count, missed), strict=True)
    ]
    (tmp_path / "per_sample.json").write_text(json.dumps(rows))
    full = write(tmp_path / "m.jsonl", manifest(count))
    got, answer, _ = call(capsys, "gate", full, "--baseline", str(tmp_path), "--cycle", cycle)
    assert (got, answer["decision"]) == (code, decision)


def test_everything_works_without_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ref = write(tmp_path / "ref.jsonl", manifest(terms=False))
    hyp = write(tmp_path / "hyp.jsonl", heard(missed=80))
    code, answer, _ = call(capsys, "score", ref, hyp, "--out", str(tmp_path / "s"))
    assert (code, answer["macro"]["ker"], answer["ker_by"]["term"]) == (0, None, {})
    code, answer, _ = call(capsys, "gate", ref, "--baseline", str(tmp_path / "s"))
    assert (code, answer["decision"], answer["numbers"]["metric"]) == (0, "tune", "wer")
    code, answer, _ = call(capsys, "decide", str(tmp_path / "s"), str(tmp_path / "s"))
    assert (answer["decision"], answer["deltas"]["metric"]) == ("no_change", "wer")


def test_a_scored_row_of_the_training_set_is_warned_of(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, answer, err = call(capsys, "score", *pair, "--train", pair[0])
    assert "not validation-only" in answer["warnings"][0]
    assert "not validation-only" in err


@pytest.mark.parametrize(
    ("ref", "hyp", "file", "line", "said"),
    [
        (manifest(3), heard(2), "ref.jsonl", 3, "2.wav has no hypothesis"),
        (manifest(2), heard(3), "hyp.jsonl", 3, "2.wav has no reference"),
        (manifest(2), [*heard(2), *heard(1)], "hyp.jsonl", 3, "0.wav is already on line 1"),
        ([*manifest(2), *manifest(1)], heard(2), "ref.jsonl", 3, "0.wav is already on line 1"),
        (manifest(1), [{"audio_filepath": "0.wav", "pred_text": None}], "hyp.jsonl", 1, "found null"),
        (manifest(1), [{"audio_filepath": "0.wav", "pred_text": 3}], "hyp.jsonl", 1, "found 3"),
        (manifest(1), [{"audio_filepath": "0.wav"}], "hyp.jsonl", 1, "pred_text: missing"),
        ([{"audio_filepath": "0.wav"}], heard(1), "ref.jsonl", 1, "text: missing"),
        ([{"audio_filepath": "0.wav", "text": "x", "term": 5}], heard(1), "ref.jsonl", 1, "term"),
        ([{"text": "x"}], heard(1), "ref.jsonl", 1, "audio_filepath: missing"),
        ([], [], "ref.jsonl", None, "no rows"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named_by_file_and_line(
    ref: Rows, hyp: Rows, file: str, line: int | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    paths = write(tmp_path / "ref.jsonl", ref), write(tmp_path / "hyp.jsonl", hyp)
    code, answer, err = call(capsys, "score", *paths, "--out", str(out))
    assert code == 2
    assert answer["error"]["file"] == str(tmp_path / file)
    assert answer["error"]["line"] == line
    assert said in err
    assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    "args",
    [
        ["decide", "none.json", "none.json"], ["gate", "none.jsonl", "--baseline", "none"],
        ["score", "none.jsonl", "none.jsonl"], ["score", "a", "b", "--mode", "clinic"],
    ],
)  # fmt: skip
def test_a_missing_file_or_wrong_option_is_one_clear_message(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err


LEAF: dict[str, Any] = {"errors": 1, "total": 2, "rate": 0.5, "ci95": None}


@pytest.mark.parametrize(
    "content",
    [
        "{}", "[]", "null", "not json", "[" * 100_000, '{"micro": []}', '{"micro": {}}',
        '{"micro": {"wer": {"rate": NaN}}}',
        *(json.dumps({"micro": {"wer": leaf}}) for leaf in (3, "x", [], {**LEAF, "rate": "x"}, {**LEAF, "rate": -1},
                                                           {**LEAF, "ci95": [1]}, {**LEAF, "ci95": [None,
                                                           None]}, {})),
        *(json.dumps({"micro": {"wer": LEAF}, **more}) for more in (
            {"macro": 3}, {"macro": {"ker": 3}}, {"ker_by": 3}, {"ker_by": {"entity_category": {"drug": 3}}})),
    ],
    ids=range(20),
)  # fmt: skip
def test_a_damaged_score_file_is_one_clear_message(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "score.json").write_text(content)
    assert main(["decide", str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "content",
    [
        "3", '"x"', "[3]", '[{"audio_filepath": 3}]', "[{}]", '{"rows": 3}', "[", "", "[]",
        '[{"audio_filepath": "0.wav"}, {"audio_filepath": "0.wav"}]', '[{"audio_filepath": "elsewhere.wav"}]',
    ],
)  # fmt: skip
def test_a_damaged_row_file_is_one_clear_message(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "per_sample.json").write_text(content)
    assert main(["gate", write(tmp_path / "m.jsonl", manifest()), "--baseline", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_score_with_only_rates_is_enough_to_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rate in (("a", 0.25), ("b", 0.2)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"micro": {"wer": {"rate": rate}}, "macro": {"ker": None}}))
    code, answer, _ = call(capsys, "decide", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert (code, answer["decision"]) == (0, "keep")


def test_a_transcript_already_in_the_manifest_does_not_stand_for_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"pred_text": "give 1.0 mg aspirin", "ker": 0} for row in manifest()]
    said = [row | {"pred_text": "nothing"} for row in manifest()]
    (tmp_path / "per_sample.json").write_text(json.dumps(said))
    code, answer, _ = call(capsys, "gate", write(tmp_path / "m.jsonl", rows), "--baseline", str(tmp_path))
    assert (code, answer["decision"]) == (0, "tune")


def test_what_a_person_sees_has_the_rates_and_says_what_was_scored(
    pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *pair, "--mode", "nvidia"]) == 0
    out = capsys.readouterr().out
    assert "40.0% [30.9–49.8]" in out
    assert "nvidia mode" in out
