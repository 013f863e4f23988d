from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile


def launcher(*args: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / "in" / f"{name}.wav", np.full((24_000, 2), 0.1), 48_000)
    (tmp_path / "in/t.csv").write_text("file,text\na.wav,one\nb.wav,two\nz.wav,none\n")
    return tmp_path / "in"


def test_import_answers_one_object_with_the_fields_of_the_contract(folder: Path, tmp_path: Path) -> None:
    ran = launcher("import", folder, "--out", tmp_path / "out", "--json")
    assert ran.returncode == 0
    answer = json.loads(ran.stdout)
    assert answer["manifest"] == str(tmp_path / "out/manifest.jsonl")
    assert (answer["rows"], answer["formats"]) == (2, {"wav, 48 kHz stereo": 2})
    assert answer["hours"] == pytest.approx(1 / 3600, abs=1e-6)
    assert answer["skipped"] == [
        {"path": "z.wav", "why": "no such recording (t.csv line 4)"},
        {"path": "c.wav", "why": "no transcript for it"},
    ]


def test_import_tells_a_person_what_was_read_and_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    ran = launcher("import", folder, "--out", tmp_path / "out")
    assert "Read 2 clips, 1.0 s (wav, 48 kHz stereo → 16 kHz mono) and t.csv; 2 left out" in " ".join(
        ran.stdout.split()
    )
    assert "c.wav: no transcript for it" in ran.stdout
    assert ran.stderr == ""


def test_import_writes_wav_when_asked(folder: Path, tmp_path: Path) -> None:
    launcher("import", folder, "--out", tmp_path / "out", "--format", "wav")
    assert soundfile.info(tmp_path / "out/audio/a.wav").samplerate == 16_000


def test_a_folder_without_audio_is_one_line_exit_2_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ran = launcher("import", tmp_path / "in", "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "no audio in this folder" in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_transcripts_file_may_be_given_instead_of_the_folder(folder: Path, tmp_path: Path) -> None:
    ran = launcher("import", folder / "t.csv", "--out", tmp_path / "out", "--json")
    assert json.loads(ran.stdout)["rows"] == 2


def test_a_terminal_sees_a_progress_bar_and_json_stays_clean(folder: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "launcher", "import", str(folder), "--out", str(tmp_path / "out"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            seen += part
        out, _ = child.communicate()
    os.close(ours)
    assert json.loads(out)["rows"] == 2
    assert b"importing" in seen
    assert b"2/2" in seen


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 48_000)
    soundfile.write(tmp_path / "in/a.wav", noise, 16_000)
    (tmp_path / "in/a.txt").write_text("noise")

    def small_files() -> None:  # what a file system out of room does, without filling one
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    ran = launcher("import", tmp_path / "in", "--out", tmp_path / "out", preexec_fn=small_files)
    assert ran.returncode == 2
    assert "cannot write: the disk is full" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.suffix in {".flac", ".part"}] == []
