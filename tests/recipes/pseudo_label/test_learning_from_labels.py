"""A tiny teacher labels a folder, noise is filtered out, and a student learns from what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finetune_harness import Recipe, corpus
from labelling_harness import NOISES, SPOKEN, Labelling, rows_of, said_in, told, without_noise

from recipes.contract import RecipeExit, damaged, read_complete

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def taught(labelling: Labelling, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TDT teacher that knows six words, and real labels that it has not heard."""
    folder = tmp_path_factory.mktemp("taught")
    corpus(folder / "train.jsonl", 60, 1, SPOKEN)
    corpus(folder / "held_out.jsonl", 10, 2, SPOKEN)
    (folder / "texts.txt").write_text(" ".join(SPOKEN) + "\n", encoding="utf-8")
    build = labelling.repo / "examples" / "tiny_base" / "build.py"
    learn = ["--corpus", folder / "texts.txt", "--train", folder / "train.jsonl", "--steps", 300]
    labelling.call(build, "--kind", "tdt", "--out", folder / "teacher.nemo", *learn)
    return folder


def test_a_student_learns_from_what_its_teacher_heard_and_noise_is_filtered(
    labelling: Labelling, taught: Path, tiny_bases: Path, tone_folder: Path, tmp_path: Path
) -> None:
    least = 0.9  # noise had 0.53 to 0.89 on one processor; on another all of it was below 0.8
    code, errors = labelling.run(
        tmp_path / "labels", model=str(taught / "teacher.nemo"), manifest=str(tone_folder), min_confidence=least
    )
    assert code == RecipeExit.DONE, errors
    out = tmp_path / "labels" / "out"
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed)
    assert [a.path for a in listed][:2] == ["labelled.jsonl", "filtered.jsonl"]
    labelled, filtered = rows_of(out)
    assert len(labelled) + len(filtered) == 40 + NOISES + 1
    spoken = without_noise(labelled)
    assert len(spoken) >= 25  # most of what is speech is kept
    right = [row for row in spoken if row["text"] == said_in(row)]
    assert len(right) >= 0.85 * len(spoken)  # and right
    assert len(labelled) - len(spoken) <= 2  # and of the noise hardly any
    noise = [row for row in filtered if Path(row["audio_filepath"]).name.startswith("noise")]
    assert {row["reason"] for row in noise} <= {"low_confidence", "empty", "repeats"}
    unsure = [row for row in noise if row["reason"] == "low_confidence"]
    assert len(unsure) >= NOISES / 2 and all(row["text"] and row["confidence"] < least for row in unsure)
    assert [row["reason"] for row in filtered if row["audio_filepath"].endswith("torn.flac")] == ["unreadable"]
    assert any("1 of 49 files cannot be read" in event["message"] for event in told(out, "warning"))
    assert all(row["teacher"] == "teacher.nemo" and least <= row["confidence"] <= 1 for row in labelled)
    assert [(event["step"], event["total"]) for event in told(out, "progress")][-1] == (48, 48)

    spec = Recipe(labelling.python, labelling.repo, taught).spec(
        tmp_path, base=str(tiny_bases / "ctc.nemo"), train_manifest=str(out / "labelled.jsonl"),
        validation_manifest=str(taught / "held_out.jsonl"), max_steps=160, batch_size=8, learning_rate=4e-3,
        validation_interval_steps=80,
    )  # fmt: skip
    code, errors = Recipe(labelling.python, labelling.repo, taught).run(spec, tmp_path / "student")
    assert code == 0, errors
    metrics = json.loads((tmp_path / "student" / "result.json").read_text())["metrics"]
    assert metrics["validation_wer_before"] > 0.9
    assert metrics["validation_wer"] < 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "gone.nemo"}, "gone.nemo"),
        ({"model": "{empty}"}, "no config.json in it"),
        ({"manifest": "{empty}"}, "a folder without audio files"),
        ({"manifest": "gone.jsonl"}, "gone.jsonl: cannot be read: No such file"),
        ({"manifest": "{unreadable}"}, "none of its audio can be read"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_code_10(
    labelling: Labelling, tone_folder: Path, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.wav").write_text("no audio")
    given = {key: value.format(empty=tmp_path / "empty", unreadable=tmp_path / "unreadable")
             for key, value in change.items()}  # fmt: skip
    code, errors = labelling.run(tmp_path / "run", **{"model": "gone.nemo", "manifest": str(tone_folder)} | given)
    assert code == RecipeExit.BAD_INPUT
    assert says in errors.splitlines()[-1] and "Traceback" not in errors
    assert read_complete(tmp_path / "run" / "out") is None
