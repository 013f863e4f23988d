from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import encode, tone, write

from launcher.data.headers import HeaderError, _crc8, read_header


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_headers_say_what_libsndfile_says(tmp_path: Path, subtype: str, channels: int) -> None:
    path = write(tmp_path / "a.wav", tone(0.7, 22_050, channels=channels), 22_050, subtype)
    info = soundfile.info(path)
    header = read_header(path)
    assert (header.rate_hz, header.channels, header.frames) == (info.samplerate, info.channels, info.frames)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 30_000),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 12_345]),
    channels=st.integers(1, 4),
    level=st.sampled_from([0, 1, 300, 20_000]),
)
def test_flac_headers_say_what_libsndfile_says_and_a_cut_end_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, frames: int, rate: int, channels: int, level: int
) -> None:
    path = tmp_path_factory.mktemp("flac") / "a.flac"
    noise = np.random.default_rng(frames).integers(-level, level + 1, (frames, channels), dtype=np.int16)
    soundfile.write(path, noise, rate)
    header = read_header(path)
    assert (header.rate_hz, header.channels, header.frames) == (rate, channels, frames)
    raw = path.read_bytes()
    path.write_bytes(raw[: 86 + (len(raw) - 86) // 2])  # 86: where the first frame begins
    if frames > 4096 and level:  # more than one frame, so that half the file cannot hold the last
        with pytest.raises(HeaderError, match="cut short"):
            read_header(path)


def test_sound_that_looks_like_a_frame_does_not_make_a_whole_file_look_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(0.5))
    fake = b"\xff\xf8\xc9\x08\x00"  # a frame header: 4,096 samples, the first of the file
    path.write_bytes(path.read_bytes() + fake + bytes([_crc8(fake)]) + b"sound" * 9)
    assert read_header(path).frames == 8_000


def test_flac_from_another_encoder_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", tone(1.3, 16_000), 16_000, "flac")
    assert read_header(path).frames == 20_800


def test_the_same_sound_has_the_same_checksum_under_any_name(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, tone(0.5)) for name in ("a.flac", "b.flac"))
    three = write(tmp_path / "c.flac", tone(0.5, hz=441))
    assert read_header(one).sound_md5 == read_header(two).sound_md5 != read_header(three).sound_md5


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.aiff"])
def test_other_formats_are_left_to_libsndfile(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, tone(1.0))
    assert read_header(path).rate_hz == 16_000
    assert read_header(path).duration_s == pytest.approx(1.0, abs=0.1)


def test_extra_chunks_before_the_sound_are_stepped_over(tmp_path: Path) -> None:
    raw = write(tmp_path / "a.wav", tone(0.5)).read_bytes()
    junk = b"LIST" + struct.pack("<I", 301) + b"x" * 302  # an odd length is padded
    (tmp_path / "b.wav").write_bytes(raw[:12] + junk + raw[12:])
    assert read_header(tmp_path / "b.wav").frames == 8_000


def test_a_wav_of_unknown_length_reaches_to_its_end(tmp_path: Path) -> None:
    raw = bytearray(write(tmp_path / "a.wav", tone(0.5)).read_bytes())
    raw[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(raw)
    assert read_header(tmp_path / "a.wav").frames == 8_000


def test_a_wav_shorter_than_its_header_says_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0))
    path.write_bytes(path.read_bytes()[:-8_000])
    with pytest.raises(HeaderError, match=r"promises 1\.00 s, 0\.75 s are there"):
        read_header(path)


def test_pipes_devices_and_folders_are_refused_and_never_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", "/dev/zero", tmp_path):
        with pytest.raises(HeaderError, match="not a regular file"):
            read_header(path)
    for path, why in (
        (tmp_path / "absent", "no such file"),
        ("a\0b", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
    ):
        with pytest.raises(HeaderError, match=why):
            read_header(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_crash_the_header_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    kind = data.draw(st.sampled_from(["a.wav", "a.flac", ""]))
    raw = bytearray(write(folder / "seed" / kind, tone(0.4)).read_bytes() if kind else b"")
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=12)):
        if at < len(raw):
            raw[at] = value
    raw = raw[: data.draw(st.integers(0, len(raw)))] + data.draw(st.binary(max_size=60))
    path = folder / "fuzzed"
    path.write_bytes(raw)
    try:
        header = read_header(path)
    except HeaderError:
        return
    assert header.rate_hz > 0
    assert header.channels > 0
    assert header.frames >= 0
