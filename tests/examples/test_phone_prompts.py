"""The example on recorded human speech: fetched without root, imported, tuned, measured."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run(repo: Path, script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repo / "examples" / "phone-prompts" / script), *map(str, arguments)]
    env = {"LAUNCHER_CACHE": str(repo / ".cache")} | os.environ | environment
    return subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, check=False)


def apt() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no apt-get here: the recordings come as Debian packages")


@pytest.mark.apt
def test_the_prompts_come_as_a_folder_of_recordings_with_words_and_a_part_is_always_the_same(
    repo: Path, tmp_path: Path
) -> None:
    apt()
    for name in ("one", "two"):
        done = run(repo, "fetch.py", "--out", tmp_path / name, "--rows", 40)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"] == 40
    folder = tmp_path / "one" / "recordings"
    table = (folder / "transcripts.csv").read_text(encoding="utf-8")
    assert table == (tmp_path / "two" / "recordings" / "transcripts.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert {row["file"] for row in rows} == {path.name for path in folder.glob("*.g722")}
    assert all(row["text"] and set(row["text"]) <= set("abcdefghijklmnopqrstuvwxyz' ") for row in rows)
    imported = [sys.executable, "-m", "launcher", "--home", str(tmp_path / "home"), "import", str(folder)]
    imported += ["--out", str(tmp_path / "data"), "--json"]
    done = subprocess.run(imported, cwd=repo, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found["rows"] == 40 and found["skipped"] == [] and 0.005 < found["hours"] < 0.1


def test_a_system_without_apt_is_told_why_and_nothing_is_left_behind(repo: Path, tmp_path: Path) -> None:
    done = run(repo, "fetch.py", "--out", tmp_path / "out", PATH="", LAUNCHER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 3
    assert "Debian packages" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.apt
@pytest.mark.nemo
def test_recorded_human_speech_goes_from_a_folder_to_a_decision_and_a_receipt(
    repo: Path, tmp_path: Path, recipe_python: Path
) -> None:
    apt()
    done = run(
        repo, "run.py", "--dir", tmp_path, "--rows", 60, "--steps", 20, "--base-steps", 30,
        LAUNCHER_RECIPE_PYTHON=str(recipe_python),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (receipt,) = (tmp_path / "home").rglob("receipt.json")
    (model,) = (tmp_path / "home").rglob("adapted_model.nemo")
    assert json.loads(receipt.read_text(encoding="utf-8"))
    assert model.stat().st_size > 100_000
    assert "decision" in done.stdout + done.stderr
