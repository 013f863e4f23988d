"""The demo's corpus: what a user would bring, made without apt or root, the same for the same seed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

CATEGORIES = {"drug", "procedure", "condition", "anatomy", "lab", "role"}


def make(repo: Path, out: Path, *arguments: object) -> dict[str, Any]:
    script = repo / "examples" / "clinical-terms" / "make_corpus.py"
    env = os.environ | {"PATH": ""}  # no espeak-ng program can be found: the Python package has to do
    command = [sys.executable, str(script), "--out", str(out), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def launcher(repo: Path, home: Path, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "launcher", "--home", str(home), *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_gives_the_same_files_and_another_seed_other_voices(repo: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        make(repo, tmp_path / name, "--seed", seed, "--voices", 2)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert len(one) > 700 and one == two
    audio = [name for name in one if not name.endswith((".csv", ".txt", ".jsonl"))]
    assert all(one[name] != other[name] for name in audio if name in other)


def test_the_corpus_goes_through_import_and_split_with_enough_of_every_category_and_unseen_speakers(
    repo: Path, tmp_path: Path
) -> None:
    made = make(repo, tmp_path / "corpus")
    imported = launcher(repo, tmp_path / "home", "import", made["recordings"], "--out", tmp_path / "in")
    assert imported["rows"] == made["rows"] == 600 and imported["skipped"] == []
    split = launcher(
        repo, tmp_path / "home", "manifest", "split", imported["manifest"], "--out", tmp_path / "split",
        "--group-by", "voice_id",
    )  # fmt: skip
    held = rows_of(Path(split["validation"]))
    assert len(held) >= 100  # as many as the gate asks for
    counts = Counter(row["entity_category"] for row in held)
    assert set(counts) == CATEGORIES and min(counts.values()) >= 5
    assert all(row["term"] in row["text"].split() for row in held)
    assert {row["noise_level"] for row in held} == {"clean", "snr_15db", "snr_5db"}
    assert {row["ipa_source"] for row in held} == {"override", "merriam-webster", "magpie_g2p"}
    assert {row["context_type"] for row in held} == {"dictation", "handoff", "chart_note", "history"}
    sets = [rows_of(Path(split["train"])), held, rows_of(Path(made["general"])), rows_of(Path(made["base"]))]
    voices = [{row["voice_id"] for row in rows} for rows in sets]
    assert sum(map(len, voices)) == len(set().union(*voices)) == 30 + 10 + 14

    terms = {row["term"] for row in held}
    taught = " ".join(row["text"] for rows in sets[2:] for row in rows).split()
    assert len(terms) == 20 and not terms & set(taught)  # the base never hears a term


def test_recordings_come_in_the_formats_people_have_and_noise_is_as_loud_as_it_says(
    repo: Path, tmp_path: Path
) -> None:
    made = make(repo, tmp_path, "--voices", 5)
    folder = Path(made["recordings"])
    kinds = {(path.suffix, (i := soundfile.info(path)).samplerate, i.channels) for path in folder.glob("*.*3")}
    kinds |= {(p.suffix, (i := soundfile.info(p)).samplerate, i.channels) for p in folder.glob("*.[wf]*")}
    assert kinds == {
        (".wav", 16000, 1), (".flac", 44100, 2), (".mp3", 44100, 1), (".wav", 22050, 1), (".flac", 16000, 1),
    }  # fmt: skip
    with (folder / "transcripts.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    floor: dict[str, list[float]] = {}
    for row in rows:
        samples, rate = soundfile.read(folder / row["file"], always_2d=True)
        frames = samples[:, 0][: len(samples) // (rate // 50) * (rate // 50)].reshape(-1, rate // 50)
        power = np.sort((frames**2).mean(axis=1))
        floor.setdefault(row["noise_level"], []).append(10 * np.log10(power[-1] / max(power[0], 1e-9)))
    ranges = {name: float(np.median(values)) for name, values in floor.items()}  # loudest to quietest 20 ms, dB
    assert ranges["clean"] > ranges["snr_15db"] + 6 > ranges["snr_5db"] + 12


def test_the_job_and_the_settings_of_its_base_are_ones_the_launcher_takes(repo: Path) -> None:
    from launcher.job import JobFile
    from recipes.finetune.spec import FinetuneSpec

    folder = repo / "examples" / "clinical-terms"
    job = JobFile.model_validate(yaml.safe_load((folder / "job.yaml").read_text(encoding="utf-8")))
    manifests = {"train_manifest": "t", "validation_manifest": "v", "general_manifest": "g"}
    spec = FinetuneSpec.model_validate(job.spec | manifests)
    assert spec.replays and job.gate is not None and set(job.gate.priority) <= CATEGORIES
    base = yaml.safe_load((folder / "base.yaml").read_text(encoding="utf-8"))
    script = (repo / "examples" / "tiny_base" / "build.py").read_text(encoding="utf-8")
    assert all(f"{name}:" in script for name in base)  # each is a field of its Settings


@pytest.mark.parametrize("rate", [22050, 44100, 8000])
def test_resampling_keeps_a_tone_where_it_was(repo: Path, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repo / "examples" / "synthetic"))
    from voices import resample

    seconds = np.arange(rate // 2) / rate
    tone = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)
    made = resample(tone, rate, 16000)
    wanted = np.sin(2 * np.pi * 1000 * np.arange(len(made)) / 16000)
    assert len(made) == 8000
    assert np.abs(made - wanted)[400:-400].max() < 0.02
