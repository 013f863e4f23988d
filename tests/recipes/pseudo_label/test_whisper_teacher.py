"""A Whisper of transformers labels a folder: its confidences, the filter by them, being killed and going on, STOP."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest
from labelling_harness import HERE, SPOKEN, Labelling, rows_of, told

from recipes.contract import RecipeExit, read_complete
from recipes.pseudo_label.journal import JOURNAL
from tests.patience import until

pytestmark = pytest.mark.nemo
ANY = {"max_repeats": 99, "max_compression_ratio": 99, "max_characters_per_s": 999}


@pytest.fixture(scope="module")
def whisper(labelling: Labelling, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as save_pretrained writes it, of random weights."""
    folder = tmp_path_factory.mktemp("teachers") / "tiny-whisper"
    labelling.call(HERE / "tiny_whisper.py", folder, *SPOKEN)
    return folder


def test_a_whisper_labels_a_folder_and_killed_it_goes_on(
    labelling: Labelling, whisper: Path, tone_folder: Path, tmp_path: Path
) -> None:
    settings = {"model": str(whisper), "manifest": str(tone_folder), "language": "en", "batch_size": 1, **ANY}
    run, out = tmp_path / "run", tmp_path / "run" / "out"
    process = labelling.start(run, **settings)
    until(lambda: process.poll() is not None or len(told(out, "progress")) >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = (out / JOURNAL).read_text().splitlines()
    assert 9 <= len(kept) < 49  # at least two parts of four clips, and not all

    moved = shutil.copytree(tone_folder, tmp_path / "another machine's")  # and another bound: nothing is heard anew
    code, errors = labelling.run(run, **settings | {"manifest": str(moved), "min_confidence": 0.6})
    assert code == RecipeExit.DONE, errors
    assert any(f"{len(kept) - 1} of 48 clips" in event["message"] for event in told(out, "note"))
    lines = (out / JOURNAL).read_text().splitlines()
    assert [line for line in lines if line in kept] == kept
    keys = [json.loads(line)["key"] for line in lines[1:] if line]
    assert len(keys) == len(set(keys)) == 48
    labelled, filtered = rows_of(out)
    assert filtered.pop()["reason"] == "unreadable"  # torn.flac
    assert labelled and filtered
    assert all(row["confidence"] >= 0.6 for row in labelled)
    assert {row["reason"] for row in filtered} == {"low_confidence"}
    assert all(row["confidence"] < 0.6 for row in filtered)
    assert all(row["confidence"] == pytest.approx(math.exp(row["avg_logprob"]), abs=1e-3) for row in labelled)
    assert {row["teacher"] for row in labelled} == {"tiny-whisper"}


@pytest.mark.slow("LAUNCHER_TEST_LABELS")  # make test-labels
def test_asked_to_stop_it_writes_what_there_is_and_its_numbers_are_the_models_own(
    labelling: Labelling, whisper: Path, tone_folder: Path, tmp_path: Path
) -> None:
    settings = {"model": str(whisper), "manifest": str(tone_folder), "language": "en", "batch_size": 1, **ANY}
    out = tmp_path / "out"
    process = labelling.start(tmp_path, **settings, min_confidence=0)
    until(lambda: process.poll() is not None or len(told(out, "progress")) >= 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == RecipeExit.STOPPED_AT_LIMIT, errors
    assert "SIGTERM" in errors.splitlines()[-1]
    assert json.loads((out / "result.json").read_text())["status"] == "stopped"
    assert read_complete(out) is not None
    labelled, filtered = rows_of(out)
    assert 4 <= len(labelled) < 48 and len(filtered) == 1
    named = [f"{row['audio_filepath']}={row['text']}" for row in labelled]
    again = json.loads(labelling.call(HERE / "whisper_check.py", whisper, *named).splitlines()[-1])
    for row, (path, mean, quiet) in zip(labelled, again, strict=True):
        assert row["audio_filepath"] == path
        assert row["avg_logprob"] == pytest.approx(mean, abs=1e-3)
        assert row["no_speech_prob"] == pytest.approx(quiet, abs=1e-4)
