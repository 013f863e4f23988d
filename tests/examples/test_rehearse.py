"""`make rehearse`: a newcomer's whole way through renting, and nothing of it left, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.contract import EVENTS, damaged, read_complete, read_events

pytestmark = [
    pytest.mark.root,
    pytest.mark.nemo,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: its machines are namespaces"),
]
WORDS = "SIMULATION: a practice cloud on this computer. Nothing is rented, and nothing costs anything."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that recordings and base are made once."""
    return tmp_path_factory.mktemp("rehearsal")


def rehearse(repo: Path, folder: Path, python: Path, *words: str) -> subprocess.Popen[str]:
    env = os.environ | {
        "LAUNCHER_RECIPE_PYTHON": str(python), "LAUNCHER_CACHE": str(repo / ".cache"), "CI": "",
        "LAUNCHER_DOWNLINK_MBPS": "0.05",  # so slow that it pays to merge a model of 2 MB here
        "VAST_URL": "http://127.0.0.1:9",  # of a user's shell: it may not matter
    }  # fmt: skip
    argv = [sys.executable, str(repo / "examples" / "rehearse.py"), "--dir", str(folder), "--steps", "20", *words]
    return subprocess.Popen(argv, cwd=repo, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip


def left(folder: Path) -> list[str]:
    """Processes and mounts that still know this rehearsal."""
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in processes + mounts if str(folder / "rehearsal") in line]


def test_a_newcomer_rents_trains_and_is_told_that_it_was_a_simulation(
    repo: Path, folder: Path, recipe_python: Path
) -> None:
    process = rehearse(repo, folder, recipe_python, "--yes", "--provider", "vast", "--method", "lora_decoder")
    said, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, said[-4000:]
    assert said.startswith(WORDS)
    assert said.rstrip().endswith(WORDS)
    bill = re.search(
        r"own bill: \$(\d+\.\d+) for 1 machine\(s\), 0 of them still billing\. .*ledger: \$(\d+\.\d+)", said
    )
    assert bill, said[-2000:]
    assert float(bill[1]) > 0
    assert abs(float(bill[1]) - float(bill[2])) <= 0.001
    models = list((folder / "rehearsal" / "home" / "runs").glob("*/adapted_model.nemo"))
    assert len(models) == 1
    home = models[0].parent
    adapter = home / "adapter.safetensors"
    assert adapter.stat().st_mtime_ns < models[0].stat().st_mtime_ns  # the worth of the run was safe here first
    notes = [event["message"] for _, event in read_events(home / EVENTS) if event["kind"] == "note"]
    assert any(note.startswith("merging here: fetching adapted_model.nemo would take") for note in notes), notes
    listed = read_complete(home)
    assert listed is not None
    assert damaged(home, listed) == []
    assert not any("could not be merged" in note for note in notes)
    assert left(folder) == []


def test_an_interrupted_rehearsal_is_taken_down_too(repo: Path, folder: Path, recipe_python: Path) -> None:
    process = rehearse(repo, folder, recipe_python, "--yes", "--provider", "vast")
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("getting ready"):  # a machine is there
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=300)
    told = "".join(said) + rest
    assert process.returncode == 130, told[-4000:]
    assert "0 of them still billing" in told
    assert "The practice cloud is gone" in told
    assert left(folder) == []
