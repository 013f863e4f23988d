"""Reading and writing files of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.manifest import ManifestError, read_manifest, read_rows, write_manifest


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "ä/ü 1.wav", "text": "naïve “½” 胰岛素 𝄞", "duration": 1.5}, {"text": ""}]
    write_manifest(tmp_path / "m.jsonl", rows)
    assert read_manifest(tmp_path / "m.jsonl") == rows
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_byte_order_mark_blank_lines_and_crlf_are_read_over(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert read_rows(file) == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not JSON"), (b"[1]", "one JSON object a line, found list"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"duration": NaN}', "NaN is not"), (b'{"text": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "not JSON"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(b'{"ok": 1}\n' + line + b"\n")
    with pytest.raises(ManifestError, match=said) as caught:
        read_manifest(file)
    assert (caught.value.line, caught.value.file) == (2, str(file))
    assert str(caught.value).startswith(f"{file}:2")


def test_a_missing_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")


@pytest.mark.parametrize("duration", [None, float("nan"), float("inf"), "2", True])
def test_a_duration_that_is_no_number_is_never_written(tmp_path: Path, duration: object) -> None:
    with pytest.raises(ManifestError, match="duration"):
        write_manifest(tmp_path / "m.jsonl", [{"duration": duration}])
    assert not list(tmp_path.iterdir())
