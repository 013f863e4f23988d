"""Transcripts of another system: JSON lines with text or pred_text, and what Whisper's own command writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipes.manifest import ManifestError, write_manifest
from recipes.scoring.files import read_pair

NAMES = ("clips/a.wav", "clips/b.flac")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [{"audio_filepath": name, "text": "turn on the lights", "duration": 1.0} for name in NAMES]
    write_manifest(tmp_path / "m.jsonl", rows)
    return tmp_path / "m.jsonl"


def whisper(text: str) -> dict[str, Any]:
    """As whisper/utils.py's WriteJSON writes one (20250625): the text begins with a space."""
    segment = {"id": 0, "start": 0.0, "end": 1.0, "text": text, "avg_logprob": -0.3, "no_speech_prob": 0.01}
    return {"text": text, "segments": [segment], "language": "en"}


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def heard(manifest: Path, source: Path) -> list[str]:
    rows, texts = read_pair(manifest, source, foreign=True)
    return [texts[row["audio_filepath"]] for row in rows]


def test_json_lines_may_say_text_or_pred_text_and_pred_text_is_what_was_heard(manifest: Path, tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": str(tmp_path / NAMES[1]), "text": "only text"},
        {"audio_filepath": NAMES[0], "text": "the reference", "pred_text": "what was heard"},
    ]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert heard(manifest, tmp_path / "h.jsonl") == ["what was heard", "only text"]
    with pytest.raises(ManifestError, match="pred_text: missing"):  # of our own files it is asked
        read_pair(manifest, tmp_path / "h.jsonl")


def test_a_folder_of_whispers_own_files_is_matched_by_the_audios_name(manifest: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "w" / "a.json", whisper(" Turn on the lights."))
    write_json(tmp_path / "w" / "b.json", {"segments": whisper(" Turn")["segments"] + whisper(" on")["segments"]})
    (tmp_path / "w" / "a.srt").write_text("beside it")
    assert heard(manifest, tmp_path / "w") == ["Turn on the lights.", "Turn on"]


def test_one_file_of_whispers_is_one_row(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "text": "x", "duration": 1.0}])
    assert heard(tmp_path / "m.jsonl", write_json(tmp_path / "a.json", whisper(" X."))) == ["X."]
    assert heard(tmp_path / "m.jsonl", write_json(tmp_path / "a.wav.json", whisper(" Y."))) == ["Y."]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.json": whisper("x")}, r"clips/b\.flac has no hypothesis"),
        ({"a.json": whisper("x"), "b.json": whisper("y"), "c.json": whisper("z")}, "c has no reference"),
        ({"a.json": whisper("x"), "b.json": {"language": "en"}}, "b.json  text: missing"),
        ({"a.json": whisper("x"), "b.json": [1]}, "not what whisper writes"),
        ({"a.json": whisper("x"), "a.wav.json": whisper("x"), "b.json": whisper("y")}, "has a file already"),
        ({"a.txt": "x"}, r"without one \.json file"),
    ],
)
def test_what_does_not_match_is_named(manifest: Path, tmp_path: Path, files: dict[str, Any], says: str) -> None:
    for name, value in files.items():
        write_json(tmp_path / "w" / name, value)
    with pytest.raises(ManifestError, match=says):
        heard(manifest, tmp_path / "w")


def test_a_name_that_two_rows_have_is_not_guessed(tmp_path: Path) -> None:
    rows = [{"audio_filepath": f"{folder}/a.wav", "text": "x", "duration": 1.0} for folder in ("one", "two")]
    write_manifest(tmp_path / "m.jsonl", rows)
    with pytest.raises(ManifestError, match=r"one/a\.wav and two/a\.wav"):
        heard(tmp_path / "m.jsonl", write_json(tmp_path / "a.json", whisper("x")))
