from __future__ import annotations

import json
from pathlib import Path

import pytest
from offered import job_of

from launcher.home import Home
from launcher.prepare import Prepared, prepare


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has 32 GB free, whatever else runs on it: hours decide, not memory."""
    monkeypatch.setattr("launcher.estimate.estimator._memory_gb", lambda: 32.0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 400 clips of 9 seconds: an hour."""
    place = tmp_path_factory.mktemp("plan")
    for n in range(400):
        (place / f"{n}.wav").write_bytes(b"RIFF" + bytes(60) + n.to_bytes(4, "big"))
    rows = [{"audio_filepath": f"{n}.wav", "duration": 9.0, "text": f"take {n} milligrams"} for n in range(400)]
    (place / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture(scope="session")
def prepared(folder: Path) -> Prepared:
    return prepare(job_of(folder).data, Home(folder / "home").ensure())
