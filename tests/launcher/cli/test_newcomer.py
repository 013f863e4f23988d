"""What someone meets who has recordings and knows nothing of the rest: wrong files, pipes, and -q."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from launcher.cli import main
from launcher.cli.output import Output, complain
from launcher.cli.transcribe import _readable
from launcher.errors import BadInputError
from launcher.report.receipt import _headline, _mark

LONG = "/a/path/that/goes/on" * 12 + "/manifest.jsonl"


@pytest.mark.parametrize("name, kind", [("table.csv", "table"), ("clip.mp3", "recording"), ("folder", "folder")])
def test_what_is_no_manifest_is_named_once_with_the_verb_that_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    path = tmp_path / name
    path.mkdir() if kind == "folder" else path.write_text("file,text\na.wav,hello\n", encoding="utf-8")
    assert main(["manifest", "check", str(path), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["problem"] == f"is a {kind}, not a manifest."
    assert "launcher import" in error["fix"]


def test_a_table_is_no_manifest_for_init_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "transcripts.csv"
    table.write_text("file,text\na.wav,hello\n", encoding="utf-8")
    assert main(["init", str(tmp_path / "job"), "--manifest", str(table)]) == 2
    assert "table, not a manifest" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


def test_a_missing_base_is_not_sent_to_the_importer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path), "--base", str(tmp_path / "none.nemo")]) == 2
    said = capsys.readouterr().err
    assert "no such file" in said
    assert "import" not in said


def test_a_folder_where_a_job_is_meant_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path), "--home", str(tmp_path / "home")]) == 2
    said = capsys.readouterr().err
    assert "is a folder" in said
    assert said.count(str(tmp_path)) == 1


def test_a_line_in_a_pipe_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    Output().say(f"Manifest  {LONG}")
    Output().line(f"log {LONG}")
    assert pipe.getvalue() == f"Manifest  {LONG}\nlog {LONG}\n"


def test_quiet_drops_talk_and_keeps_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True)
    out.say("talk")
    out.answer("keep")
    assert capsys.readouterr().out == "keep\n"


def test_an_answer_stays_off_stdout_in_json_mode(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json_mode=True, quiet=True).answer("keep")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("verb", ["evaluate", "transcribe"])
def test_a_recording_where_the_model_goes_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.zeros(1600, np.int16), 16_000)
    assert main([verb, str(clip), str(clip)]) == 2
    assert "is not a .nemo file" in capsys.readouterr().err


def test_a_clip_the_recipe_cannot_read_is_converted_for_it(tmp_path: Path) -> None:
    import av

    tone = (np.sin(np.arange(44_100) / 20) * 9000).astype(np.int16)[None]
    path = tmp_path / "memo.m4a"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 44_100
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    made = _readable(path, tmp_path, 0)
    info = soundfile.info(made)
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert info.duration == pytest.approx(1.0, abs=0.1)


def test_a_clip_that_is_read_as_it_is_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(1600, np.int16), 16_000)
    assert _readable(path, tmp_path, 0) == path


def test_a_broken_clip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp3"
    path.write_bytes(b"ID3" + b"\x00garbage" * 400)
    with pytest.raises(BadInputError, match=r"broken\.mp3.*not readable as audio"):
        _readable(path, tmp_path, 0)


@pytest.mark.parametrize(
    "decision, headline, mark",
    [("keep", "better model", "✓"), ("no_change", "tuned model", "✓"), ("reject_forgets", "rejected model", "!")],
)
def test_a_rejected_model_wears_no_tick(decision: str, headline: str, mark: str) -> None:
    receipt = {"exit": 0, "state": "settled", "decision": {"decision": decision}}
    assert _headline(receipt) == headline
    assert _mark(receipt)[0] == mark


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_error_on_a_terminal_breaks_between_words_and_in_a_pipe_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    words = f"error: {LONG} is a folder. Name the file in it, such as job.yaml."
    screen, pipe = _Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    complain(words)
    monkeypatch.setattr(sys, "stderr", pipe)
    complain(words)
    assert pipe.getvalue() == f"{words}\n"
    assert screen.getvalue().split() == words.split()
    assert all(len(line) <= 30 or line == LONG for line in screen.getvalue().splitlines())
