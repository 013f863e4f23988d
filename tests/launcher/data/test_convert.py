from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import encode, loudness, pitch, tone, write

from launcher.data.convert import RATE_HZ, DecodeError, convert

STEREO_44K = tone(2.0, 44_100, channels=2)


def make(path: Path) -> Path:
    """Two seconds of 440 Hz at half scale in the format of `path`."""
    name = path.name
    if name.endswith(".mp3"):
        return encode(path, STEREO_44K, 44_100, "libmp3lame")
    if name.endswith(".m4a"):
        return encode(path, STEREO_44K, 44_100, "aac", "ipod")
    if name.endswith(".opus"):
        return encode(path, tone(2.0, 48_000, channels=2), 48_000, "libopus", "ogg")
    if name.endswith(".g722"):
        return encode(path, tone(2.0), RATE_HZ, "g722", "g722")
    rate, _, subtype = path.stem.partition("-")
    return write(path, tone(2.0, int(rate), channels=1 + int(rate) % 2), int(rate), subtype or None)


FORMATS = [
    "a.mp3", "a.m4a", "a.opus", "a.g722", "44100.flac", "48000-PCM_24.flac", "11025.ogg", "22050.aiff", "16000.au",
    "16000.caf", *(f"8000-{kind}.wav" for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW",
                                                  "ALAW", "GSM610", "MS_ADPCM")),
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_every_format_becomes_16_khz_mono_with_the_same_tone_length_and_loudness(
    tmp_path: Path, name: str, suffix: str
) -> None:
    made = convert(make(tmp_path / name), tmp_path / f"out{suffix}")
    info = soundfile.info(tmp_path / f"out{suffix}")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    assert info.frames == made.frames
    assert made.duration_s == pytest.approx(2.0, abs=0.005)
    assert pitch(tmp_path / f"out{suffix}") == pytest.approx(440.0, abs=0.6)
    # LAME itself writes at 95% of full scale; nothing else may change the level.
    assert loudness(tmp_path / f"out{suffix}") == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


def test_16_bit_16_khz_mono_comes_through_bit_for_bit(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).integers(-32768, 32768, 20_000, dtype=np.int16)
    soundfile.write(tmp_path / "in.wav", samples, RATE_HZ)
    convert(tmp_path / "in.wav", tmp_path / "out.flac")
    assert np.array_equal(soundfile.read(tmp_path / "out.flac", dtype="int16")[0], samples)


def test_what_is_above_8_khz_does_not_fold_down_into_speech(tmp_path: Path) -> None:
    write(tmp_path / "in.wav", tone(2.0, 48_000, hz=11_000), 48_000)
    convert(tmp_path / "in.wav", tmp_path / "out.flac")
    assert loudness(tmp_path / "out.flac") < 0.001


def test_a_silent_channel_does_not_halve_the_loudness(tmp_path: Path) -> None:
    sound = np.vstack([tone(1.0), np.zeros((1, RATE_HZ), np.float32)])
    convert(write(tmp_path / "in.wav", sound), tmp_path / "out.flac")
    assert loudness(tmp_path / "out.flac") == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_mirror_image_channels_do_not_cancel(tmp_path: Path) -> None:
    sound = np.vstack([tone(1.0), -tone(1.0)])
    convert(write(tmp_path / "in.wav", sound), tmp_path / "out.flac")
    assert loudness(tmp_path / "out.flac") == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_two_different_channels_are_both_heard(tmp_path: Path) -> None:
    sound = np.vstack([tone(1.0, hz=440), tone(1.0, hz=1000)])
    convert(write(tmp_path / "in.wav", sound), tmp_path / "out.flac")
    samples, _ = soundfile.read(tmp_path / "out.flac")
    spectrum = np.abs(np.fft.rfft(samples)) / len(samples)
    assert spectrum[440] == pytest.approx(0.125, rel=0.01)
    assert spectrum[1000] == pytest.approx(0.125, rel=0.01)


def test_float_samples_beyond_full_scale_are_scaled_not_clipped(tmp_path: Path) -> None:
    convert(write(tmp_path / "in.wav", tone(1.0, level=30_000.0), subtype="FLOAT"), tmp_path / "out.flac")
    samples, _ = soundfile.read(tmp_path / "out.flac")
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum[440] > 100 * np.delete(spectrum, 440).max()  # a clipped sine would show odd harmonics


def test_a_segment_is_cut_to_the_sample(tmp_path: Path) -> None:
    samples = np.random.default_rng(2).integers(-9999, 9999, 32_000, dtype=np.int16)
    soundfile.write(tmp_path / "in.wav", samples, RATE_HZ)
    made = convert(tmp_path / "in.wav", tmp_path / "out.flac", segment=(0.5, 0.75))
    assert made.frames == 12_000
    assert np.array_equal(soundfile.read(tmp_path / "out.flac", dtype="int16")[0], samples[8_000:20_000])


def test_a_segment_beyond_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"ends at 3 s, the recording at 1 s"):
        convert(write(tmp_path / "in.wav", tone(1.0)), tmp_path / "out.flac", segment=(0.0, 3.0))


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.opus", "44100.flac", "11025.ogg", "8000-PCM_16.wav"])
def test_a_recording_cut_in_half_is_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "in" / name)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(DecodeError):
        convert(source, tmp_path / "out.flac")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.opus", "44100.flac", "11025.ogg"])
def test_a_recording_with_a_scrambled_middle_is_refused(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / name)
    raw = bytearray(source.read_bytes())
    quarter = len(raw) // 4
    raw[2 * quarter : 3 * quarter] = random.Random(3).randbytes(quarter)
    source.write_bytes(raw)
    with pytest.raises(DecodeError):
        convert(source, tmp_path / "out.flac")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"not audio at all" * 100, "not readable"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not readable"),
    ],
)
def test_what_is_not_audio_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.mp3").write_bytes(content)
    with pytest.raises(DecodeError, match=why):
        convert(tmp_path / "x.mp3", tmp_path / "out.flac")


def test_a_name_that_looks_like_a_protocol_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.wav", "-i.wav", "a%03d.wav", "new\nline.wav"):
        write(Path(name), tone(0.5))
        assert convert(Path(name), tmp_path / "out.flac").frames == 8_000


def test_a_blink_of_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"only 0\.050 s"):
        convert(write(tmp_path / "x.wav", tone(0.05)), tmp_path / "out.flac")
