"""A row is the same row whether its audio is written relative to the manifest or in full."""

import json
from pathlib import Path

import pytest

from recipes.manifest import ManifestError, write_manifest
from recipes.scoring.files import as_in, read_pair


def test_hypotheses_with_full_paths_match_a_manifest_with_relative_ones(tmp_path: Path) -> None:
    refs = [{"audio_filepath": f"clips/{n}.wav", "text": "x", "duration": 1.0} for n in range(3)]
    write_manifest(tmp_path / "m.jsonl", refs)
    heard = [{"audio_filepath": str(tmp_path / "clips" / f"{n}.wav"), "pred_text": str(n)} for n in (2, 0, 1)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in heard))
    rows, texts = read_pair(tmp_path / "m.jsonl", tmp_path / "h.jsonl")
    assert [texts[row["audio_filepath"]] for row in rows] == ["0", "1", "2"]


def test_another_folders_file_of_the_same_name_is_not_taken_for_it(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "text": "x", "duration": 1.0}])
    (tmp_path / "h.jsonl").write_text(json.dumps({"audio_filepath": "/elsewhere/a.wav", "pred_text": "x"}) + "\n")
    with pytest.raises(ManifestError, match=r"a\.wav has no hypothesis"):
        read_pair(tmp_path / "m.jsonl", tmp_path / "h.jsonl")


def test_a_name_that_stands_in_both_is_never_given_away(tmp_path: Path) -> None:
    full = str(tmp_path / "a.wav")
    assert as_in(["a.wav"], ["a.wav", full], tmp_path) == {"a.wav": "a.wav", full: full}
