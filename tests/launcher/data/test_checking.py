from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import encode, tone, write

from launcher.data import CheckResult, check_manifest, import_recordings
from launcher.errors import BadInputError

GOOD = {"audio_filepath": "a.flac", "text": "hello there", "duration": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, hz in (("a.flac", 440), ("b.flac", 441), ("c.wav", 442)):
        write(tmp_path / name, tone(1.0, hz=hz))
    write(tmp_path / "stereo.wav", tone(1.0, channels=2))
    write(tmp_path / "slow.wav", tone(1.0, 8_000), 8_000)
    (tmp_path / "junk.wav").write_bytes(b"this is no sound" * 9)
    (tmp_path / "zero.wav").touch()
    cut = write(tmp_path / "cut.flac", tone(1.0))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return tmp_path


def check(folder: Path, *rows: dict[str, Any] | str | bytes, **options: Any) -> CheckResult:
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    (folder / "m.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return check_manifest(folder / "m.jsonl", **options)


def errors(found: CheckResult) -> list[tuple[int, str, str]]:
    return [(e.line, e.field, e.problem) for e in found.errors]


def test_a_sound_manifest_has_no_findings(folder: Path) -> None:
    rows = [{**GOOD, "entity_category": "drug", "term": "Hello"}, {**GOOD, "audio_filepath": str(folder / "c.wav")}]
    found = check(folder, *rows)
    assert (found.errors, found.warnings, found.ok) == ((), (), True)
    assert (found.rows, found.categories, found.longest_s) == (2, {"drug": 1}, 1.0)
    assert found.hours == pytest.approx(2 / 3600)


FAULTS: dict[str, tuple[dict[str, Any] | str | bytes, str, str]] = {
    "missing audio": ({**GOOD, "audio_filepath": "gone.wav"}, "audio_filepath", "no such file: 'gone.wav'."),
    "unreadable audio": ({**GOOD, "audio_filepath": "junk.wav"}, "audio_filepath", "not readable as audio"),
    "empty audio": ({**GOOD, "audio_filepath": "zero.wav"}, "audio_filepath", "an empty file (0 bytes): 'zero.wav'."),
    "cut audio": ({**GOOD, "audio_filepath": "cut.flac"}, "audio_filepath", "cut short: its header promises 1.00 s"),
    "a folder": ({**GOOD, "audio_filepath": "."}, "audio_filepath", "not a regular file"),
    "a device": ({**GOOD, "audio_filepath": "/dev/zero"}, "audio_filepath", "not a regular file"),
    "stereo": ({**GOOD, "audio_filepath": "stereo.wav"}, "audio_filepath", "2 channels instead of 1."),
    "8 kHz": ({**GOOD, "audio_filepath": "slow.wav"}, "audio_filepath", "8,000 Hz instead of 16,000."),
    "too long": ({**GOOD, "duration": 1.2}, "duration", "says 1.2 s, the recording is 1.00 s long."),
    "too short": ({**GOOD, "duration": 0.9}, "duration", "says 0.9 s, the recording is 1.00 s long."),
    "null duration": ({**GOOD, "duration": None}, "duration", "is null."),
    "no duration": ({"audio_filepath": "a.flac", "text": "x"}, "duration", "missing."),
    "negative": ({**GOOD, "duration": -1.0}, "duration", "is -1.0, not a length."),
    "zero": ({**GOOD, "duration": 0}, "duration", "is 0, not a length."),
    "NaN": ({**GOOD, "duration": float("nan")}, "duration", "is NaN."),
    "Infinity": ({**GOOD, "duration": float("inf")}, "duration", "is infinite."),
    "overflow": ('{"audio_filepath": "a.flac", "text": "x", "duration": 1e999}', "duration", "is infinite."),
    "text as duration": ({**GOOD, "duration": "1.0"}, "duration", "text where a number of seconds is expected."),
    "bool as duration": ({**GOOD, "duration": True}, "duration", "true where a number of seconds is expected."),
    "empty text": ({**GOOD, "text": ""}, "text", "is empty."),
    "blank text": ({**GOOD, "text": " \t"}, "text", "is empty."),
    "null text": ({**GOOD, "text": None}, "text", "is null."),
    "no text": ({"audio_filepath": "a.flac", "duration": 1.0, "sentence": "x"}, "text", "missing."),
    "number as text": ({**GOOD, "text": 12}, "text", "a number where text is expected."),
    "list as text": ({**GOOD, "text": ["a"]}, "text", "a list where text is expected."),
    "half a character": (
        '{"audio_filepath": "a.flac", "text": "\\ud800", "duration": 1.0}',
        "text",
        "holds half a Unicode",
    ),
    "no path": ({"text": "x", "duration": 1.0}, "audio_filepath", "missing."),
    "number as path": ({**GOOD, "audio_filepath": 7}, "audio_filepath", "a number where a path is expected."),
    "path out": (
        {**GOOD, "audio_filepath": "x/../../a.flac"},
        "audio_filepath",
        "leads out of the manifest's folder",
    ),
    "NUL in path": ({**GOOD, "audio_filepath": "a\0.flac"}, "audio_filepath", "holds a character no path can hold."),
    "tilde": ({**GOOD, "audio_filepath": "~/a.flac"}, "audio_filepath", "begins with ~"),
    "URL": ({**GOOD, "audio_filepath": "s3://bucket/a.flac"}, "audio_filepath", "a URL (s3); only files are read."),
    "part too long": (
        {**GOOD, "offset": 0.5},
        "offset",
        "offset and duration end at 1.50 s, the recording at 1.00 s.",
    ),
    "negative offset": ({**GOOD, "offset": -1}, "offset", "is negative."),
    "key twice": ('{"audio_filepath": "a.flac", "text": "x", "text": "y", "duration": 1.0}', "text", "stands twice"),
    "NaN elsewhere": ({**GOOD, "score": float("nan")}, "score", "NaN and Infinity are not JSON."),
    "category a number": ({**GOOD, "entity_category": 3}, "entity_category", "a number where text is expected."),
    "broken JSON": ('{"audio_filepath": "a.flac"', "json", "broken at column 28"),
    "two objects": ("{} {}", "json", "broken at column 4"),
    "a list": ("[1]", "json", "a list where a row is an object."),
    "a word": ("null", "json", "null where a row is an object."),
    "deep brackets": ("[" * 100_000, "json", "too deep"),
    "huge number": ("9" * 5000, "json", "a number too long"),
    "bad UTF-8": (
        b'{"audio_filepath": "a.flac", "text": "\xe9", "duration": 1.0}',
        "encoding",
        "byte 0xe9 at 39 is not UTF-8.",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_is_found_by_line_and_field_with_a_fix(folder: Path, case: str) -> None:
    row, field, problem = FAULTS[case]
    good = {**GOOD, "audio_filepath": "b.flac"}
    found = check(folder, good, row, {**good, "audio_filepath": "c.wav"})
    (error,) = found.errors
    assert (error.line, error.field) == (2, field)
    assert problem in error.problem
    assert error.fix
    assert not found.ok


def test_all_faults_of_a_row_and_of_a_file_come_in_one_pass(folder: Path) -> None:
    found = check(folder, {"audio_filepath": "stereo.wav", "text": "", "duration": None}, "{", {"text": 1})
    assert [(line, field) for line, field, _ in errors(found)] == [
        (1, "text"), (1, "duration"), (1, "audio_filepath"), (2, "json"),
        (3, "audio_filepath"), (3, "text"), (3, "duration"),
    ]  # fmt: skip


def test_rounding_of_a_duration_is_no_fault(folder: Path) -> None:
    assert check(folder, {**GOOD, "duration": 1.03}, {**GOOD, "audio_filepath": "b.flac", "duration": 1}).ok


def test_duplicates_and_one_audio_under_two_texts_name_the_first_line(folder: Path) -> None:
    other = {**GOOD, "audio_filepath": f"{folder}/x/../a.flac", "text": "another"}
    assert errors(check(folder, GOOD, GOOD, other)) == [
        (2, "audio_filepath", "repeats line 1."),
        (3, "text", "line 1 has another text for the same recording."),
    ]


def test_parts_of_one_recording_are_no_duplicates(folder: Path) -> None:
    parts = [{**GOOD, "offset": start, "duration": 0.5, "text": f"part {start}"} for start in (0, 0.5)]
    assert check(folder, *parts).ok
    assert errors(check(folder, *parts, parts[1])) == [(3, "audio_filepath", "repeats line 2.")]


def test_the_same_sound_under_another_name_is_noticed(folder: Path) -> None:
    (folder / "copy.flac").write_bytes((folder / "a.flac").read_bytes())
    again = {**GOOD, "audio_filepath": "copy.flac"}
    assert [w.problem for w in check(folder, GOOD, again).warnings] == [
        "the same sound as line 1, under another name."
    ]
    assert errors(check(folder, GOOD, {**again, "text": "no"})) == [
        (2, "text", "line 1 has another text for the same sound.")
    ]


def test_a_byte_order_mark_is_an_error_and_hides_nothing_else(folder: Path) -> None:
    found = check(folder, b"\xef\xbb\xbf" + json.dumps({**GOOD, "duration": None}).encode())
    assert [(e.line, e.field) for e in found.errors] == [(1, "encoding"), (1, "duration")]
    found = check(folder, json.dumps(GOOD).encode("utf-16"))
    assert [(e.line, e.field) for e in found.errors] == [(1, "encoding")]


def test_what_nemo_reads_over_is_a_warning(folder: Path) -> None:
    found = check(folder, json.dumps(GOOD) + "\r", "", {**GOOD, "audio_filepath": "b.flac", "noise_level": "loud"})
    assert found.ok
    assert [(w.line, w.field) for w in found.warnings] == [(1, "encoding"), (2, "json"), (3, "noise_level")]


def test_labels_that_scoring_cannot_use_are_warnings(folder: Path) -> None:
    found = check(folder, {**GOOD, "entity_category": "drugs", "term": "metformin", "text": "x" * 90})
    assert found.ok
    assert [w.field for w in found.warnings] == ["entity_category", "term", "text"]
    assert found.categories == {"drugs": 1}


def test_hours_beyond_a_maximum_duration_are_counted(folder: Path) -> None:
    write(folder / "long.wav", tone(3.0))
    rows = [GOOD, {**GOOD, "audio_filepath": "long.wav", "duration": 3.0}]
    found = check(folder, *rows, max_duration_s=2.0)
    assert (found.ok, found.dropped_rows) == (True, 1)
    assert found.dropped_hours == pytest.approx(3 / 3600)
    for nonsense in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match="--max-duration"):
            check_manifest(folder / "m.jsonl", max_duration_s=nonsense)


def test_text_the_tokenizer_cannot_write_is_an_error(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join("abcdefghijklmnopqrstuvwxyz"))
    rows = [
        GOOD,
        {**GOOD, "audio_filepath": "b.flac", "text": "naïve"},
        {**GOOD, "audio_filepath": "c.wav", "text": "Hi"},
    ]
    found = check(folder, *rows, tokenizer=folder / "vocab.txt")
    assert errors(found) == [
        (2, "text", "the tokenizer cannot write 'ï' (LATIN SMALL LETTER I WITH DIAERESIS)."),
        (3, "text", "the tokenizer cannot write 'H' (LATIN CAPITAL LETTER H)."),
    ]
    assert found.errors[1].fix == "Write it in lower case."


def test_an_empty_manifest_is_an_error_and_an_absent_one_is_said_to_be_so(folder: Path) -> None:
    assert errors(check(folder, b"")) == [(1, "json", "no rows in it.")]
    with pytest.raises(BadInputError, match=r"absent\.jsonl: cannot be read \(No such file"):
        check_manifest(folder / "absent.jsonl")
    with pytest.raises(BadInputError, match="is a folder, not a manifest"):
        check_manifest(folder)


def test_what_import_writes_passes_the_check(tmp_path: Path) -> None:
    encode(tmp_path / "in/a.mp3", tone(2.0, 44_100, channels=2), 44_100, "libmp3lame")
    write(tmp_path / "in/b.wav", tone(1.234, 8_000), 8_000, "PCM_U8")
    for name in ("a", "b"):
        (tmp_path / f"in/{name}.txt").write_text(f"this is {name}")
    for kind in ("flac", "wav"):
        made = import_recordings(tmp_path / "in", tmp_path / kind, audio_format=kind)
        found = check_manifest(made.manifest)
        assert (found.errors, found.warnings, found.rows) == ((), (), 2)
        assert found.hours == pytest.approx(made.hours)


def test_progress_rises_to_its_end(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    check(folder, GOOD, progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


HALF = chr(0xD800)  # half a surrogate pair: legal in a JSON escape, not in any output
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["a.flac", "..", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
ROWS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("audio_filepath", "text", "duration", "offset", "entity_category", "noise_level", "term", HALF), JSON_VALUES
    ),
)


def survives(folder: Path, raw: bytes) -> CheckResult:
    """A check that must end with findings, whatever the bytes, and whose findings can be written as JSON."""
    (folder / "fuzz.jsonl").write_bytes(raw)
    found = check_manifest(folder / "fuzz.jsonl")
    json.dumps(
        [f.as_json() for f in (*found.errors, *found.warnings)] + [found.categories], ensure_ascii=False
    ).encode()
    lines = raw.count(b"\n") + 1
    assert all(1 <= f.line <= lines and f.field and f.problem and f.fix for f in (*found.errors, *found.warnings))
    return found


def test_a_nan_under_an_empty_name_is_still_a_finding_with_a_name(tmp_path: Path) -> None:
    assert "(empty name)" in {finding.field for finding in survives(tmp_path, b'{"": Infinity}\n').errors}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_check(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    survives(tmp_path_factory.getbasetemp(), raw)


@settings(max_examples=300, deadline=None)
@given(st.lists(ROWS | JSON_VALUES, max_size=4))
def test_no_json_crashes_the_check(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    if not (folder / "a.flac").exists():
        write(folder / "a.flac", tone(0.5))
    found = survives(folder, "\n".join(map(json.dumps, rows)).encode())
    assert found.rows == sum(isinstance(row, dict) for row in rows)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_manifest_with_flipped_bytes_never_crashes_the_check(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray((json.dumps(GOOD) + "\n") * 3, "utf-8")
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)):
        raw[at] = value
    survives(tmp_path_factory.getbasetemp(), bytes(raw))
