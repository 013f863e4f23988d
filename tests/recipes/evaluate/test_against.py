"""`launcher evaluate MODEL MANIFEST --against TRANSCRIPTS`: a .nemo beside Whisper's files, row by row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from launcher.cli import main
from recipes.contract import EventLog, RecipeExit, damaged, read_complete
from recipes.entry import main as entry
from recipes.evaluate.__main__ import evaluate
from recipes.evaluate.spec import EvaluateSpec
from recipes.manifest import write_manifest

SAID = "turn on the kitchen lights"
WHISPER = [f" {SAID.capitalize()}.", " Turn on the kitten lights.", " Turn on the kitchen light", " Turn", "", SAID]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Six clips of noise said to be one sentence, and a folder of what whisper heard."""
    chance = np.random.default_rng(0)
    (tmp_path / "whisper").mkdir()
    rows = []
    for number, text in enumerate(WHISPER):
        soundfile.write(tmp_path / f"{number}.wav", chance.normal(0, 0.1, 16000).astype(np.float32), 16000)
        rows.append({"audio_filepath": f"{number}.wav", "text": SAID, "duration": 1.0})
        made = {"text": text, "segments": [{"text": text, "avg_logprob": -0.2}], "language": "en"}
        (tmp_path / "whisper" / f"{number}.json").write_text(json.dumps(made))
    write_manifest(tmp_path / "m.jsonl", rows)
    return tmp_path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_two_systems_are_scored_alike_and_the_difference_has_an_interval(corpus: Path) -> None:
    ours = [{"audio_filepath": f"{n}.wav", "pred_text": SAID if n else "turn on the chicken"} for n in range(6)]
    write_manifest(corpus / "ours.jsonl", ours)
    spec = {"hypotheses": str(corpus / "ours.jsonl"), "against": str(corpus / "whisper")}
    (corpus / "spec.json").write_text(json.dumps(spec | {"manifest": str(corpus / "m.jsonl")}))
    out = corpus / "out"
    assert entry(EvaluateSpec, evaluate, [str(corpus / "spec.json"), str(out)]) == RecipeExit.DONE
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed)
    assert {"comparison.json", "against/score.json", "against/per_sample.json"} <= {a.path for a in listed}
    assert "torch" not in sys.modules
    mine, other, found = read(out / "score.json"), read(out / "against" / "score.json"), read(out / "comparison.json")
    assert mine["micro"]["wer"]["errors"] == 2  # chicken for kitchen, no lights
    assert other["micro"]["wer"]["errors"] == 0 + 1 + 1 + 4 + 5 + 0  # capitals and the full stop are no errors
    assert (mine["mode"], mine["rows_sha256"]) == (other["mode"], other["rows_sha256"])
    test = found["paired"]["wer"]
    assert (test["before"], test["after"], test["delta"]) == (11 / 30, 2 / 30, pytest.approx(-9 / 30))
    assert test["ci95"][0] < test["delta"] < test["ci95"][1] and 0 < test["p_value"] <= 1
    assert (found["better"], found["worse"], found["same"]) == (4, 1, 1)
    assert [row["against_errors"] for row in found["rows"]] == [0, 1, 1, 4, 5, 0]
    assert [row["errors"] for row in found["rows"]] == [2, 0, 0, 0, 0, 0]
    assert found["rows"][1]["against_text"] == "Turn on the kitten lights." and not found["warnings"]


def test_a_manifest_in_place_of_transcripts_is_noticed(corpus: Path) -> None:
    spec = EvaluateSpec(
        manifest=str(corpus / "m.jsonl"), hypotheses=str(corpus / "whisper"), against=str(corpus / "m.jsonl")
    )
    evaluate(spec, corpus / "out", EventLog(corpus / "out"))
    assert "is it a manifest?" in read(corpus / "out" / "comparison.json")["warnings"][0]


@pytest.mark.parametrize(
    ("change", "says"),
    [({"3.json": None}, "3.wav has no hypothesis"), ({"3.json": "[]"}, "3.json"), (None, "no such file or folder")],
)
def test_a_fault_in_the_transcripts_is_told_before_the_model_is_opened(
    corpus: Path, recipe_python: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    change: dict[str, str | None] | None, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(recipe_python))
    monkeypatch.chdir(corpus)
    for name, text in (change or {}).items():
        (corpus / "whisper" / name).unlink()
        if text is not None:
            (corpus / "whisper" / name).write_text(text)
    (corpus / "broken.nemo").write_text("never opened")
    where = "whisper" if change else "nowhere"
    assert main(["evaluate", "broken.nemo", "m.jsonl", "--against", where, "--home", str(corpus / "home")]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said and "broken.nemo" not in said


@pytest.mark.nemo
def test_a_nemo_model_is_compared_with_whispers_files_by_one_command(
    corpus: Path, tiny_bases: Path, recipe_python: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(recipe_python))
    monkeypatch.chdir(corpus)
    command = ["evaluate", str(tiny_bases / "tdt.nemo"), "m.jsonl", "--against", "whisper", "--out", "out"]
    assert main([*command, "--home", str(corpus / "home"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["against"]["micro"]["wer"]["errors"] == 11
    heard = {row["audio_filepath"]: row["pred_text"] for row in read(corpus / "out" / "per_sample.json")}
    assert any(heard.values())  # an untrained model hears nonsense, but it hears
    assert {row["audio_filepath"]: row["pred_text"] for row in answer["comparison"]["rows"]} == heard
    test = answer["comparison"]["paired"]["wer"]
    assert test["delta"] == pytest.approx(answer["micro"]["wer"]["rate"] - 11 / 30)
    assert test["ci95"][0] <= test["delta"] <= test["ci95"][1]
    assert str(corpus / "out" / "comparison.json") in answer["files"]
