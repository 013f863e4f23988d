"""A job that labels, whole: what comes home is a manifest of the user's own audio, which a fine-tune job takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fast import FastGround
from jobs import Launcher
from rented import RentedGround

from recipes.manifest import read_manifest, write_manifest
from tests.patience import until

CLOUD = ("--seed", "11")
YES = ("--confirm", "YES", "--max-cost", "3")
SLOW = pytest.mark.slow("LAUNCHER_TEST_LABELS")  # make test-labels


def job_of(fast: FastGround, resources: str = "resources: {providers: [local]}", **nature: Any) -> Path:
    """A job that labels the ground's recordings, named without their texts by a manifest of another folder."""
    fast.job(name="teacher", **nature)
    folder = fast.folder / "unlabelled"
    folder.mkdir()
    rows = [{"audio_filepath": f"../{row['audio_filepath']}"} for row in read_manifest(fast.folder / "m.jsonl")]
    write_manifest(folder / "u.jsonl", rows)
    job = fast.folder / "label.yaml"
    job.write_text(
        "recipe: pseudo_label\nspec: {model: ./teacher.nemo, min_clip_s: 0.05}\n"
        f"data: {{manifest: unlabelled/u.jsonl}}\n{resources}\n"
    )
    return job


def assert_labels(outcome: dict[str, Any], fast: FastGround, filtered: int = 1) -> Path:
    """The labels that came home: of the user's own files, by the teacher's own name."""
    home = {Path(item["path"]).name: Path(item["path"]) for item in outcome["artifacts"]}
    rows = read_manifest(home["labelled.jsonl"])
    rest = read_manifest(home["filtered.jsonl"])
    assert len(rest) == filtered
    assert all(Path(row["audio_filepath"]).resolve().is_relative_to(fast.folder) for row in rows + rest)
    assert all(Path(row["audio_filepath"]).is_file() and row["teacher"] == "teacher.nemo" for row in rows + rest)
    assert all(row["why"] == f"{row['audio_filepath']}: silence" for row in rest)
    assert not any("split" in row for row in rows)
    assert outcome["training"]["kept"] == len(rows)
    return home["labelled.jsonl"]


def test_labels_come_home_and_are_what_a_finetune_job_learns_from(launcher: Launcher, fast: FastGround) -> None:
    code, outcome, err = launcher("run", job_of(fast))
    assert (code, outcome["state"], outcome["released"]) == (0, "settled", True), (outcome, err)
    labels = assert_labels(outcome, fast)
    assert len(read_manifest(labels)) == 9
    tune = fast.job(steps=2, name="tune.yaml", text="resources: {providers: [local]}\n")
    tune.write_text(tune.read_text().replace("m.jsonl}", f"{labels}}}"))
    code, plan, err = launcher("plan", tune)
    assert code == 0, err
    assert plan["data"]["train_rows"] + plan["data"]["validation_rows"] == 9


def test_stopped_it_brings_home_the_labels_there_are(launcher: Launcher, fast: FastGround) -> None:
    process = launcher.start("run", job_of(fast, step_s=4), "--json")

    def begun() -> list[Path]:
        return [p for p in launcher.home.glob("runs/*/events.jsonl") if p.read_text().count('"progress"') >= 2]

    (events,) = until(begun)
    launcher("stop", events.parent.name)
    out, err = process.communicate(timeout=60)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"], outcome["released"]) == (8, "stopped", True), (outcome, err)
    assert 1 <= len(read_manifest(assert_labels(outcome, fast))) < 9
    assert events.parent.name == outcome["run"]


@SLOW
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_labels_of_a_rented_machine_are_the_users_own(ground: RentedGround) -> None:
    job = job_of(ground.fast, "resources: {providers: [vast]}", trace="/tmp/trace.jsonl")
    code, outcome, err = ground.run("run", job, *YES)
    assert (code, outcome["state"], outcome["released"]) == (0, "settled", True), (outcome, err)
    assert_labels(outcome, ground.fast)
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_a_lost_machine_had_labelled_is_not_labelled_again(ground: RentedGround) -> None:
    job = job_of(ground.fast, "resources: {providers: [vast]}", step_s=4, trace="/tmp/trace.jsonl")
    process = ground.start("run", job, *YES, LAUNCHER_LINE_PATIENCE_S="15")

    def kept() -> list[Path]:
        journals = ground.launcher.home.glob("runs/*/kept/labels/journal.jsonl")
        return [path for path in journals if path.read_text().count('"key"') >= 3]

    (journal,) = until(kept, 240)
    before = journal.read_text().count('"key"')
    (machine,) = [row["id"] for row in ground.machines()]
    ground.cloud.fault("host_death", machine=machine)
    out, err = process.communicate(timeout=300)
    outcome = json.loads(out)
    assert (process.returncode, outcome["state"]) == (0, "settled"), (outcome, err)
    assert len(read_manifest(assert_labels(outcome, ground.fast))) == 9
    run = ground.launcher.home / "runs" / outcome["run"]
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    said = [str(row.get("message", "")) for row in rows]
    heard = [int(words.split()[0]) for words in said if "clips were heard before" in words]
    assert heard[0] == 0 and len(heard) == 2 and heard[1] >= before, heard
    assert "labels goes on from journal.jsonl, which was kept here" in said
    assert not (run / "kept").exists()
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])


@SLOW
@pytest.mark.nemo
def test_a_real_teacher_labels_a_folder_as_a_job(
    launcher: Launcher, tiny_bases: Path, fast: FastGround, recipe_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(recipe_python))
    job = job_of(fast)
    spec = f"{{model: {tiny_bases / 'tdt.nemo'}, min_confidence: 0, min_clip_s: 0.05, min_characters_per_s: 0, "
    spec += "max_characters_per_s: 999, max_repeats: 99}"
    job.write_text(f"recipe: pseudo_label\nspec: {spec}\ndata: {{manifest: unlabelled/u.jsonl}}\n"
                   "resources: {providers: [local]}\n")  # fmt: skip
    code, outcome, err = launcher("run", job)
    assert (code, outcome["state"]) == (0, "settled"), (outcome, err)
    labelled = [Path(item["path"]) for item in outcome["artifacts"] if item["path"].endswith("labelled.jsonl")]
    rows = read_manifest(labelled[0])
    assert rows and all(row["text"] and row["teacher"] == "tdt.nemo" for row in rows)
    assert (labelled[0].parent / "report.md").read_text().startswith("# What tdt.nemo heard")
