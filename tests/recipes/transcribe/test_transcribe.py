"""Recipe transcribe on a real (untrained) model: any audio goes in, one row a clip comes out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from recipes.contract import RecipeExit, damaged, read_complete, read_events


def transcribe(python: Path, repo: Path, folder: Path, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [str(python), "-m", "recipes.transcribe", str(folder / "spec.json"), str(folder / "out")]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)


def noise(seconds: float, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.1, int(seconds * rate)).astype(np.float32)


@pytest.mark.nemo
def test_clips_of_any_rate_channels_and_length_become_one_row_each_and_two_models_are_compared(
    recipe_python: Path, repo: Path, tmp_path: Path, tiny_bases: Path
) -> None:
    clip = noise(1.5)
    soundfile.write(tmp_path / "plain.wav", clip, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "two.wav", np.stack([clip, clip], axis=1), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "cd.flac", np.stack([noise(0.7, 44100)] * 2, axis=1), 44100)
    soundfile.write(tmp_path / "phone.wav", noise(0.8, 8000), 8000)
    soundfile.write(tmp_path / "song.mp3", noise(1.0, 48000), 48000)
    soundfile.write(tmp_path / "click.wav", noise(0.01), 16000)
    soundfile.write(tmp_path / "long.wav", np.concatenate([clip, np.zeros(8000), clip]), 16000)
    names = ["plain.wav", "two.wav", "cd.flac", "phone.wav", "song.mp3", "click.wav", "long.wav"]
    spec = {
        "model": str(tiny_bases / "tdt.nemo"),
        "against": str(tiny_bases / "ctc.nemo"),
        "audio": [str(tmp_path / name) for name in names],
        "max_duration_s": 2.0,
        "batch_size": 2,
    }
    done = transcribe(recipe_python, repo, tmp_path / "run", spec)
    assert done.returncode == RecipeExit.DONE, done.stderr[-2000:]
    out = tmp_path / "run" / "out"
    rows = json.loads((out / "transcripts.json").read_text())["rows"]
    assert [Path(row["audio_filepath"]).name for row in rows] == names
    text = {Path(row["audio_filepath"]).name: row["pred_text"] for row in rows}
    assert text["plain.wav"] and text["plain.wav"] == text["two.wav"]
    assert text["click.wav"] == ""
    assert all(text[name] for name in names if name != "click.wav")
    for row in rows:  # the diff tells both texts, whole
        assert " ".join(step[2] for step in row["diff"] if step[2]) == row["pred_text"]
        assert " ".join(step[1] for step in row["diff"] if step[1]) == row["against_text"]
    assert rows[0]["against_text"] != rows[0]["pred_text"]

    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed)
    events = [event for _, event in read_events(out / "events.jsonl")]
    warnings = " ".join(event["message"] for event in events if event["kind"] == "warning")
    assert "long.wav" in warnings and "click.wav" in warnings
    steps = [(event["step"], event["total"]) for event in events if event["kind"] == "progress"]
    assert steps[-1] == (14, 14) and steps == sorted(steps)


@pytest.mark.nemo
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"audio": ["{folder}/absent.wav"]}, "absent.wav: no such audio file"),
        ({"audio": ["{folder}/text.m4a"]}, "launcher import"),
        ({"batch_sise": 4}, "batch_sise: no such setting. Did you mean batch_size?"),
        ({"model": "{folder}/absent.nemo"}, "absent.nemo"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_input_ends_with_one_clear_line_and_code_10(
    recipe_python: Path, repo: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    (tmp_path / "text.m4a").write_text("not audio")
    soundfile.write(tmp_path / "ok.wav", noise(0.5), 16000)
    spec = {"model": "{folder}/any.nemo", "audio": ["{folder}/ok.wav"]} | change
    spec = json.loads(json.dumps(spec).replace("{folder}", str(tmp_path)))
    done = transcribe(recipe_python, repo, tmp_path / "run", spec)
    assert done.returncode == RecipeExit.BAD_INPUT
    assert named in done.stderr and "Traceback" not in done.stderr
    assert read_complete(tmp_path / "run" / "out") is None
