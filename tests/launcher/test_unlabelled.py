"""A job that labels: what it takes, what is sent, and whose paths the labels come home with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from launcher import bundle
from launcher.clock import SystemClock
from launcher.errors import BadInputError, RecipeError
from launcher.home import Home
from launcher.job import load_job
from launcher.runner.staging import bundle_of
from launcher.runner.steps import LABELS, steps_of
from launcher.workflow import Planned, plan_job
from recipes.manifest import read_manifest, write_manifest
from recipes.models.whisper_shape import whisper_shape
from recipes.pseudo_label.spec import PseudoLabelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of several kinds, one of them broken, one too short, and a Whisper's folder as transformers' is."""
    (tmp_path / "recordings" / "b").mkdir(parents=True)
    for name, seconds in (("a.wav", 4), ("b/a.wav", 6), ("c.flac", 5), ("short.wav", 0.1)):
        soundfile.write(tmp_path / "recordings" / name, np.zeros(int(16000 * seconds)), 16000)
    (tmp_path / "recordings" / "torn.mp3").write_text("no audio")
    (tmp_path / "recordings" / "read me.txt").write_text("no audio either")
    teacher = tmp_path / "kid-whisper"
    teacher.mkdir()
    config = {"model_type": "whisper", "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4}
    (teacher / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "pytorch_model.bin", "tokenizer.json", "optimizer.pt"):
        (teacher / name).write_bytes(b"0" * 4000)
    return tmp_path


def planned(folder: Path, spec: str = "model: kid-whisper", data: str = "manifest: recordings") -> Planned:
    (folder / "job.yaml").write_text(
        f"recipe: pseudo_label\nspec: {{{spec}}}\ndata: {{{data}}}\nresources: {{providers: [local]}}\n"
    )
    return plan_job(load_job(folder / "job.yaml"), Home(folder / "home"), SystemClock())


def test_a_folder_and_a_manifest_without_texts_are_planned_and_sent_with_the_teacher(folder: Path) -> None:
    made = planned(folder, "model: kid-whisper, keep_fraction: 0.5")
    plan, prepared = made.plan, made.prepared
    assert plan.recipe == "pseudo_label" and isinstance(made.job.spec, PseudoLabelSpec)
    assert (prepared.validation_rows, prepared.validation_hours) == (3, pytest.approx(15 / 3600, abs=1e-6))
    assert any("torn.mp3" in words for words in prepared.warnings)
    assert any("leave out 1 of 5" in words for words in prepared.warnings)
    assert plan.choice.estimate.steps == 0 and plan.choice.estimate.seconds_p50 > 0
    root = bundle_of(plan, folder / "run").root
    rows = read_manifest(root / "data" / "unlabelled.jsonl")
    assert len(rows) == 5 and all("split" not in row for row in rows)
    assert all((root / "data" / row["audio_filepath"]).is_file() for row in rows)
    assert sorted(file.name for file in (root / "base").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    (step,) = steps_of(plan)
    assert (step.name, step.recipe, step.spec["model"], step.spec["teacher_name"]) == (
        LABELS, "pseudo_label", "base", "kid-whisper",
    )  # fmt: skip
    there = step.spec_there(lambda path: f"/root/lease/{path}")
    assert (there["model"], there["manifest"]) == ("/root/lease/base", "/root/lease/data/unlabelled.jsonl")
    spec = PseudoLabelSpec.model_validate(there | {"teacher_kind": "whisper"})
    assert spec.name == "kid-whisper" and spec.keep_fraction == 0.5

    write_manifest(folder / "m.jsonl", [{"audio_filepath": "recordings/a.wav"}])
    assert planned(folder, data="manifest: m.jsonl").prepared.validation_rows == 1
    assert planned(folder, data="manifest: m.jsonl").prepared == planned(folder, data="manifest: m.jsonl").prepared


def test_labels_come_home_under_the_users_own_paths_and_nobody_elses(folder: Path) -> None:
    made = bundle_of(planned(folder).plan, folder / "run")
    sent = read_manifest(made.root / "data" / "unlabelled.jsonl")
    there = [{**row, "audio_filepath": f"/root/lease/data/{row['audio_filepath']}", "text": "x"} for row in sent]
    for row in there:
        row["why"] = f"{row['audio_filepath']}: cannot be read"
    home = folder / "home-again"
    write_manifest(home / "labelled.jsonl", there[:2])
    write_manifest(home / "filtered.jsonl", there[2:])
    bundle.bring_home(home, "unlabelled", made.homeward)
    rows = read_manifest(home / "labelled.jsonl") + read_manifest(home / "filtered.jsonl")
    names = {"a.wav", "b/a.wav", "c.flac", "short.wav", "torn.mp3"}
    assert {row["audio_filepath"] for row in rows} == {str(folder / "recordings" / name) for name in names}
    assert all(row["why"] == f"{row['audio_filepath']}: cannot be read" for row in rows)
    for foreign in ("/etc/passwd", "/root/lease/data/audio/other.wav", ""):
        write_manifest(home / "labelled.jsonl", [{**there[0], "audio_filepath": foreign}])
        with pytest.raises(RecipeError, match="audio that was not sent"):
            bundle.bring_home(home, "unlabelled", made.homeward)


@pytest.mark.parametrize(
    ("spec", "data", "says"),
    [
        ("model: kid-whisper", "manifest: empty", "a folder without audio files"),
        ("model: kid-whisper", "manifest: gone", "no such file"),
        ("model: kid-whisper", "manifest: torn", "none of its audio can be read"),
        ("model: kid-whisper", "manifest: bad.jsonl", "gone.wav: no such audio file"),
        ("model: kid-whisper, min_clip_s: 10", "manifest: recordings", "none would be labelled"),
        ("model: gone.nemo", "manifest: recordings", "no such .nemo file"),
        ("model: empty", "manifest: recordings", "no config.json in it"),
        ("model: kid-whisper, manifest: x", "manifest: recordings", "is filled in from `data`"),
        ("model: kid-whisper, keep_best: 1", "manifest: recordings", "keep_best"),
        ("model: kid-whisper", "manifest: recordings, general: bad.jsonl", "data.general: is not for a job"),
    ],
)
def test_what_cannot_be_labelled_is_said_before_anything_is_rented(
    folder: Path, spec: str, data: str, says: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "torn").mkdir()
    (folder / "torn" / "a.wav").write_text("no audio")
    write_manifest(folder / "bad.jsonl", [{"audio_filepath": "gone.wav"}])
    with pytest.raises(BadInputError) as caught:
        planned(folder, spec, data)
    assert says in str(caught.value)


def test_a_manifest_with_texts_is_still_what_the_other_recipes_need(folder: Path) -> None:
    (folder / "job.yaml").write_text("recipe: evaluate\nspec: {model: x/y}\ndata: {manifest: recordings}\n")
    with pytest.raises(BadInputError, match="no such file"):
        load_job(folder / "job.yaml")


@pytest.mark.parametrize(
    ("name", "millions"),
    [("aadel4/kid-whisper-small-en-myst", 244), ("aadel4/kid-whisper-medium-en-myst_cslu", 769),
     ("openai/whisper-large-v3-turbo", 809), ("openai/whisper-large-v3", 1550), ("somebody/whisper", 769)],
)  # fmt: skip
def test_a_whispers_size_is_known_by_its_name(name: str, millions: int) -> None:
    shape: Any = whisper_shape(name)
    assert shape.parameters == millions * 1e6
    assert 0.2 * shape.parameters < shape.encoder_parameters < 0.85 * shape.parameters


def test_a_whispers_folder_is_measured(folder: Path) -> None:
    assert whisper_shape(str(folder / "kid-whisper")).parameters == 1000
