from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import soundfile
from recordings import encode, pitch, tone, write

from launcher.data import ImportResult, import_recordings
from launcher.errors import BadInputError
from recipes.manifest import read_manifest


def recordings(folder: Path, *names: str) -> Path:
    """A folder with a short tone under each name."""
    for name in names:
        write(folder / name, tone(0.3))
    return folder


def texts(made: ImportResult) -> dict[str, str]:
    return {Path(row["audio_filepath"]).stem: row["text"] for row in read_manifest(made.manifest)}


def why(made: ImportResult) -> dict[str, str]:
    return {skipped.path: skipped.why for skipped in made.skipped}


def test_a_44_khz_stereo_mp3_becomes_a_16_khz_mono_row_with_its_real_duration(tmp_path: Path) -> None:
    encode(tmp_path / "in/a.mp3", tone(2.0, 44_100, channels=2), 44_100, "libmp3lame")
    (tmp_path / "in/t.csv").write_text("filename,transcript\na.mp3,hello there\n")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    (row,) = read_manifest(made.manifest)
    info = soundfile.info(row["audio_filepath"])
    assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
    assert row["duration"] == info.duration == pytest.approx(2.0, abs=0.005)
    assert pitch(Path(row["audio_filepath"])) == pytest.approx(440, abs=0.6)
    assert Path(row["audio_filepath"]).is_absolute()
    assert made.formats == {"mp3, 44.1 kHz stereo": 1}
    assert made.hours == pytest.approx(info.duration / 3600)


TABLES = {
    "commas.csv": 'file,text\na.wav,"one, two"\nb.wav,three\n',
    "bom-crlf.csv": '\ufefffile,text\r\na.wav,"one, two"\r\nb.wav,three\r\n',
    "semicolons.csv": "File Name;Sentence\na.wav;one, two\nb.wav;three\n",
    "excel.csv": "sep=;\r\nFile;Text\r\na.wav;one, two\r\nb.wav;three\r\n",
    "tabs.tsv": "path\tsentence\na.wav\tone, two\nb.wav\tthree\n",
    "quoted-tabs.tsv": 'path\tsentence\n"a.wav"\t"one, two"\nb.wav\tthree\n',
    "no-header.csv": 'a.wav,"one, two"\nb.wav,three\n',
    "no-extension.csv": 'id,transcription\na,"one, two"\nb,three\n',
    "unquoted.csv": "file,text\na.wav,one, two\nb.wav,three\n",
    "words-first.csv": 'text,speaker,audio_filepath\n"one, two",x,a.wav\nthree,y,b.wav\n',
    "windows-paths.csv": 'file,text\nset\\a.wav,"one, two"\nset\\b.wav,three\n',
    "other-machine.csv": 'file,text\n/home/x/a.wav,"one, two"\n/home/x/b.wav,three\n',
    "other-extension.csv": 'file,text\na.mp3,"one, two"\nb.mp3,three\n',
    "other-case.csv": 'file,text\nA.WAV,"one, two"\nB.Wav,three\n',
    "two-lines.csv": 'file,text\na.wav,"one,\ntwo"\nb.wav,three\n',
    "pipes.csv": "a|one, two|x\nb|three|x\n",
    "nemo.jsonl": '{"audio_filepath": "a.wav", "text": "one, two", "duration": null}\n'
    '{"audio_filepath": "b.wav", "text": "three"}\n',
    "list.json": '[{"file": "a.wav", "text": "one, two"}, {"file": "b.wav", "text": "three"}]',
    "names.json": '{"a.wav": "one, two", "b.wav": "three"}',
    "kaldi.txt": "a one, two\nb three\n",
    "colons.txt": "; the prompts\na: one, two\n\nb: three\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_transcripts_are_understood_in_every_common_shape(tmp_path: Path, name: str) -> None:
    recordings(tmp_path / "in", "a.wav", "b.wav")
    (tmp_path / "in" / name).write_text(TABLES[name], newline="")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert texts(made) == {"a": "one, two", "b": "three"}
    assert made.skipped == ()


def test_utf_16_as_spreadsheets_write_it_is_read(tmp_path: Path) -> None:
    recordings(tmp_path / "in", "a.wav")
    (tmp_path / "in/t.csv").write_bytes("file\ttext\r\na.wav\tgrüße\r\n".encode("utf-16"))
    assert texts(import_recordings(tmp_path / "in", tmp_path / "out")) == {"a": "grüße"}


def test_a_text_beside_each_recording_is_its_transcript(tmp_path: Path) -> None:
    recordings(tmp_path / "in", "s1/a.wav", "s2/a.WAV", "s2/b c.wav")
    for name, words in {"s1/a.txt": "one", "s2/a.txt": "two\n", "s2/b c.wav.txt": "\ufeffthree"}.items():
        (tmp_path / "in" / name).write_text(words, encoding="utf-8")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert sorted(row["text"] for row in read_manifest(made.manifest)) == ["one", "three", "two"]


def test_common_voice_is_recognised(tmp_path: Path) -> None:
    recordings(tmp_path / "cv", "clips/cv_1.wav", "clips/cv_2.wav", "clips/cv_3.wav")
    head = "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale\n"
    (tmp_path / "cv/validated.tsv").write_text(
        head + 'abc\tcv_1.wav\t9\t"Really?" she said\t2\ten\nabd\tcv_2.wav\t8\tYes.\t2\ten\n'
    )
    (tmp_path / "cv/invalidated.tsv").write_text(head + "abc\tcv_3.wav\t9\tno\t0\ten\n")
    made = import_recordings(tmp_path / "cv", tmp_path / "out", language="en")
    first, second = read_manifest(made.manifest)
    assert (first["text"], first["voice_id"], first["lang"]) == ('"Really?" she said', "abc", "en")
    assert second["text"] == "Yes."
    assert why(made) == {"clips/cv_3.wav": "no transcript for it"}


def test_librispeech_is_recognised(tmp_path: Path) -> None:
    recordings(tmp_path / "in", "84/121/84-121-0000.flac", "84/121/84-121-0001.flac", "26/495/26-495-0000.flac")
    (tmp_path / "in/84/121/84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n84-121-0001 BUT\n")
    (tmp_path / "in/26/495/26-495.trans.txt").write_text("26-495-0000 YES\n")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert {(r["text"], r["voice_id"]) for r in read_manifest(made.manifest)} == {
        ("GO DO YOU HEAR", "84"), ("BUT", "84"), ("YES", "26"),
    }  # fmt: skip


def test_the_fields_of_keyword_scoring_pass_through(tmp_path: Path) -> None:
    recordings(tmp_path / "in", "a.wav")
    (tmp_path / "in/t.csv").write_text(
        "Audio File,Text,Speaker,term,Entity Category,noise_level,ipa_source,context_type,age\n"
        "a.wav,take metformin,s1,metformin,drug,clean,override,dictation,44\n"
    )
    (row,) = read_manifest(import_recordings(tmp_path / "in", tmp_path / "out").manifest)
    del row["audio_filepath"], row["duration"]
    assert row == {
        "text": "take metformin", "voice_id": "s1", "term": "metformin", "entity_category": "drug",
        "noise_level": "clean", "ipa_source": "override", "context_type": "dictation",
    }  # fmt: skip


def test_an_offset_in_a_nemo_manifest_cuts_the_part_it_names(tmp_path: Path) -> None:
    write(tmp_path / "in/long.wav", tone(2.0))
    rows = [{"audio_filepath": "long.wav", "text": f"part {i}", "offset": 0.5 * i, "duration": 0.5} for i in (0, 2)]
    (tmp_path / "in/m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert [(row["duration"], row["text"], "offset" in row) for row in read_manifest(made.manifest)] == [
        (0.5, "part 0", False), (0.5, "part 2", False),
    ]  # fmt: skip


def test_strange_names_are_found_and_become_plain_ones(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "über.wav")
    names = ["-dash.wav", "with space.wav", "new\nline.wav", "q'uo\"te.wav", decomposed, "a%d.wav", "日本.wav"]
    recordings(tmp_path / "in", *names)
    with (tmp_path / "in/t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "text"], *([unicodedata.normalize("NFC", n), "word"] for n in names)])
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    paths = [row["audio_filepath"] for row in read_manifest(made.manifest)]
    assert len(set(paths)) == len(names)
    assert not any(set(Path(p).name) & set(" \n'\"%") or Path(p).name.startswith("-") for p in paths)


def test_names_that_differ_only_in_case_or_extension_stay_apart(tmp_path: Path) -> None:
    recordings(tmp_path / "in", "a.wav", "a.flac", "x/B.wav", "x/b.wav")
    (tmp_path / "in/t.csv").write_text("file,text\na.wav,one\na.flac,two\nx/B.wav,three\nx/b.wav,four\n")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    rows = read_manifest(made.manifest)
    assert [row["text"] for row in rows] == ["one", "two", "three", "four"]
    assert len({row["audio_filepath"].casefold() for row in rows}) == 4


def test_the_same_name_in_another_folder_is_never_taken_for_it(tmp_path: Path) -> None:
    recordings(tmp_path / "in", "spk1/001.wav", "spk3/002.wav", "spk4/002.wav")
    (tmp_path / "in/t.csv").write_text("file,text\nspk2/001.wav,wrong\nspk1/001.wav,right\n002.wav,which\n")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert [row["text"] for row in read_manifest(made.manifest)] == ["right"]
    assert why(made) == {
        "spk2/001.wav": "no such recording (t.csv line 2)",
        "002.wav": "t.csv line 4 may mean spk3/002.wav or spk4/002.wav",
    }


def test_everything_left_out_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "good.wav", "alone.wav", "blank.wav", "twice.wav", ".hidden.wav", "same.wav")
    (folder / "zero.wav").touch()
    (folder / "broken.mp3").write_bytes(b"no" * 500)
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "t.csv").write_text(
        "file,text\ngood.wav,fine\nmissing.wav,gone\nblank.wav,  \ntwice.wav,one\ntwice.wav,other\n"
        "zero.wav,a\nbroken.mp3,b\nsame.wav,again\nsame.wav,again\n"
    )
    made = import_recordings(folder, tmp_path / "out")
    assert texts(made) == {"good": "fine", "same": "again"}
    assert why(made) == {
        "alone.wav": "no transcript for it",
        "blank.wav": "its transcript is empty (t.csv line 4)",
        "missing.wav": "no such recording (t.csv line 3)",
        "twice.wav": "two different transcripts for it: t.csv line 5 and t.csv line 6",
        "zero.wav": "an empty file (0 bytes)",
        "broken.mp3": "not readable as audio (invalid data found when processing input)",
        "dangling.wav": "a link that leads nowhere",
        "pipe.wav": "not a regular file",
        "same.wav": "t.csv line 10 repeats t.csv line 9",
    }
    with made.skipped_csv.open(newline="") as file:
        listed = list(csv.reader(file))
    assert listed == [["path", "why"], *([s.path, s.why] for s in made.skipped)]


def test_a_name_that_is_not_utf_8_is_left_out_and_can_be_printed(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav")
    (folder / "a.txt").write_text("hello")
    os.link(folder / "a.wav", os.fsencode(folder) + b"/caf\xe9.wav")
    made = import_recordings(folder, tmp_path / "out")
    assert why(made) == {"caf\\udce9.wav": "its name is not valid UTF-8: rename it"}
    made.skipped_csv.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav")
    (folder / "a.txt").write_text("hello")
    with pytest.raises(BadInputError, match="--out: cannot be written"):
        import_recordings(folder, Path("/proc/nowhere"))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    recordings(tmp_path / "elsewhere", "a.wav")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/linked/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/t.csv").write_text("file,text\na.wav,hello\n")
    assert texts(import_recordings(tmp_path / "in", tmp_path / "out")) == {"a": "hello"}


def test_two_files_with_transcripts_are_an_error_that_names_both_and_the_flag(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav")
    (folder / "old.csv").write_text("file,text\na.wav,old\n")
    (folder / "new.tsv").write_text("file\ttext\na.wav\tnew\n")
    (folder / "speakers.csv").write_text("speaker,age\ns1,44\n")  # no transcripts: not in the way
    with pytest.raises(BadInputError, match=r"new\.tsv and old\.csv.*--transcripts") as caught:
        import_recordings(folder, tmp_path / "out")
    assert "speakers" not in str(caught.value)
    made = import_recordings(folder, tmp_path / "out", transcripts=[Path("new.tsv")])
    assert texts(made) == {"a": "new"}


def test_a_table_and_a_text_that_contradict_it_are_an_error(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav", "b.wav")
    (folder / "t.csv").write_text("file,text\na.wav,one\n")
    (folder / "b.txt").write_text("two")
    assert texts(import_recordings(folder, tmp_path / "out")) == {"a": "one", "b": "two"}
    (folder / "a.txt").write_text("another")
    with pytest.raises(BadInputError, match=r"t\.csv.*a\.txt.*--transcripts"):
        import_recordings(folder, tmp_path / "out2")


WRONG = {
    "no audio": ({}, "no audio in this folder"),
    "no transcripts": ({"a.wav": None}, "no transcripts"),
    "a spreadsheet": ({"a.wav": None, "t.xlsx": "x"}, "save it as CSV"),
    "no text column": ({"a.wav": None, "t.csv": "file,age\na.wav,4\n"}, r"t\.csv:1: no column for the words"),
    "names of another set": ({"a.wav": None, "t.csv": "file,text\nz.wav,hi\n"}, "names no recording that is here"),
    "Latin-1": ({"a.wav": None, "t.csv": "file,text\na.wav,\udce9t\udce9\n"}, r"t\.csv:2: byte 0xe9 is not UTF-8"),
    "broken JSON": ({"a.wav": None, "m.jsonl": '{"audio_filepath": "a.wav"\n'}, r"m\.jsonl:1: not JSON"),
    "an open quote": ({"a.wav": None, "t.csv": 'file,text\na.wav,"hi, you\nb.wav,x\n'}, "quotes do not pair up"),
    "all broken": ({"a.wav": "junk", "t.csv": "file,text\na.wav,hi\n"}, "not one of 1 recording can be used"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_error_and_writes_nothing(tmp_path: Path, case: str) -> None:
    files, message = WRONG[case]
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in files.items():
        if content is None:
            recordings(folder, name)
        else:
            (folder / name).write_text(content, errors="surrogateescape")
    with pytest.raises(BadInputError, match=message):
        import_recordings(folder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_second_run_converts_nothing_again(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav", "b.wav")
    (folder / "t.csv").write_text("file,text\na.wav,one\nb.wav,two\n")
    first = import_recordings(folder, tmp_path / "out")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").iterdir()}
    manifest = first.manifest.read_bytes()
    second = import_recordings(folder, tmp_path / "out")
    assert (first.reused, second.reused) == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").iterdir()} == made
    assert second.manifest.read_bytes() == manifest


def test_a_recording_or_output_that_changed_is_converted_again(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    (folder / "t.csv").write_text("file,text\na.wav,one\nb.wav,two\nc.wav,three\n")
    import_recordings(folder, tmp_path / "out")
    write(folder / "a.wav", tone(0.6))
    (tmp_path / "out/audio/b.flac").write_bytes(b"half")
    made = import_recordings(folder, tmp_path / "out")
    assert made.reused == 1
    assert [row["duration"] for row in read_manifest(made.manifest)] == [0.6, 0.3, 0.3]


def test_an_import_killed_at_any_moment_goes_on_and_ends_as_if_never_killed(tmp_path: Path) -> None:
    names = [f"{i:02}.wav" for i in range(24)]
    for name in names:
        write(tmp_path / "in" / name, tone(2.0, 48_000, channels=2), 48_000)
    (tmp_path / "in/t.csv").write_text("file,text\n" + "".join(f"{n},word {n}\n" for n in names))
    command = [sys.executable, "-m", "launcher", "import", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    for wanted in (1, 5, 11):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and sum(1 for _ in tmp_path.glob("out/audio/*.flac")) < wanted:
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        for path in tmp_path.glob("out/audio/*.flac"):
            assert soundfile.read(path)[0].shape == (32_000,)  # whatever has its name is whole
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert made.reused >= 1
    assert [row["duration"] for row in read_manifest(made.manifest)] == [2.0] * 24
    assert not list(tmp_path.rglob("*.part"))
    whole = import_recordings(tmp_path / "in", tmp_path / "other")
    assert whole.manifest.read_text().replace("/other/", "/out/") == made.manifest.read_text()


def test_a_result_is_never_written_over_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (recordings(tmp_path / name, "a.wav") / "t.csv").write_text("file,text\na.wav,hi\n")
    import_recordings(tmp_path / "one", tmp_path / "out")
    with pytest.raises(BadInputError, match="holds the import of"):
        import_recordings(tmp_path / "two", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/manifest.jsonl").write_text("{}\n")
    with pytest.raises(BadInputError, match="that import did not make"):
        import_recordings(tmp_path / "two", tmp_path / "mine")
    with pytest.raises(BadInputError, match="own folder"):
        import_recordings(tmp_path / "two", tmp_path / "two")


def test_the_result_may_lie_inside_the_folder_without_becoming_a_source(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav")
    (folder / "t.csv").write_text("file,text\na.wav,hi\n")
    for out in ("first", "first", "second"):
        made = import_recordings(folder, folder / out)
        assert (made.rows, made.skipped) == (1, ())


def test_rows_of_another_language_are_left_out(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", "a.wav", "b.wav")
    (folder / "t.csv").write_text("file,text,language\na.wav,hello,en-GB\nb.wav,hallo,de\n")
    made = import_recordings(folder, tmp_path / "out", language="en")
    (row,) = read_manifest(made.manifest)
    assert (row["text"], row["lang"]) == ("hello", "en")
    assert why(made) == {"b.wav": "its language is de, not en"}


def test_silence_is_imported_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "in/a.wav", tone(1.0) * 0)
    (tmp_path / "in/a.txt").write_text("hello")
    made = import_recordings(tmp_path / "in", tmp_path / "out")
    assert made.rows == 1
    assert "digital silence: 1 recording" in made.warnings[0]


def test_a_recording_that_crashes_the_decoder_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker process that dies as a crashing C library makes it die.
    folder = recordings(tmp_path / "in", "a.wav", "crash.wav", "c.wav", "d.wav", "e.wav", "f.wav")
    names = ["a.wav", "crash.wav", "c.wav", "d.wav", "e.wav", "f.wav"]
    (folder / "t.csv").write_text("file,text\n" + "".join(f"{n},word\n" for n in names))
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys, os\n"
        "def audit(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('crash.wav') and 'spawn_main' in ' '.join(sys.orig_argv):\n"
        "        os.abort()\n"
        "sys.addaudithook(audit)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]))
    made = import_recordings(folder, tmp_path / "out")
    assert made.rows == 5
    assert why(made) == {"crash.wav": "the decoder crashed on it"}
