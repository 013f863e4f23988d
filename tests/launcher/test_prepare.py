from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from launcher.home import Home
from launcher.job import JobData
from launcher.prepare import FACTS, prepare


def manifest_of(folder: Path, seconds: list[float]) -> Path:
    """A manifest of so many clips, one voice each."""
    folder.mkdir()
    lines = []
    for n, length in enumerate(seconds):
        soundfile.write(folder / f"{n}.wav", np.zeros(int(16000 * length)), 16000)
        row = {"audio_filepath": f"{n}.wav", "duration": length, "text": "word " * (n + 1), "voice_id": f"v{n}"}
        lines.append(json.dumps(row) + "\n")
    (folder / "m.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "m.jsonl"


def test_what_an_estimate_needs_is_counted_once_and_found_again(tmp_path: Path) -> None:
    seconds = [round(1 + n / 10, 1) for n in range(30)]
    data = JobData(manifest=manifest_of(tmp_path / "a", seconds), general=manifest_of(tmp_path / "g", seconds))
    home = Home(tmp_path / "home").ensure()
    made = prepare(data, home)
    files = [path for name in ("a", "g") for path in (tmp_path / name).glob("*.wav")]
    assert made.audio_gb == pytest.approx(sum(path.stat().st_size for path in files) / 1e9)
    assert made.train_rows + made.validation_rows == 30
    assert made.general_train_rows + made.general_rows == 30
    assert made.train_hours + made.validation_hours == pytest.approx(sum(seconds) / 3600, abs=1e-5)
    assert list(made.lengths_s) == sorted(made.lengths_s)
    assert (len(made.lengths_s), made.lengths_s[-1] <= max(seconds)) == (21, True)
    assert made.longest_text <= 5 * 30 < made.characters
    (facts,) = home.prepared.glob(f"*/{FACTS}")
    written = facts.stat().st_mtime_ns
    assert prepare(data, home) == made
    assert facts.stat().st_mtime_ns == written
