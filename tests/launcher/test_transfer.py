"""FLAC on the wire holds the very samples; whatever is not integer PCM, or not plainly so, travels as it is."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from launcher import bundle, transfer
from launcher.errors import BadInputError
from launcher.money import Usd
from launcher.offers.offer import Offer
from recipes.contract import sha256_of
from recipes.manifest import read_manifest, write_manifest

RATE = 16_000


def speech(seed: int, channels: int = 1, frames: int = RATE) -> np.ndarray:
    """Louder and softer, low-pass noise: something FLAC can predict, with the extremes of the range in it."""
    noise = np.random.default_rng(seed).normal(0, 1, (frames, channels)).cumsum(axis=0)
    sound = noise / np.abs(noise).max() * np.linspace(0.1, 1, frames)[:, None]
    sound[10], sound[20] = 1, -1
    return sound


def raw(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int32", always_2d=True)[0]


def wav(data: bytes, *, tag: int = 1, bits: int = 16, extra: bytes = b"", length: int | None = None) -> bytes:
    """A mono WAV by hand: chunks before the sound, and a length that need not be true."""
    block = bits // 8
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, RATE, RATE * block, block, bits)
    sound = struct.pack("<4sI", b"data", len(data) if length is None else length) + data
    body = b"WAVE" + fmt + extra + sound
    return struct.pack("<4sI", b"RIFF", len(body)) + body


PCM16 = (speech(1)[:, 0] * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_every_sample_is_the_same(tmp_path: Path, kind: str, subtype: str, channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", speech(1, channels), RATE, subtype, format=kind)
    assert transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac")
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"
    assert np.array_equal(raw(tmp_path / "a.wav"), raw(tmp_path / "a.flac"))
    for dtype in ("float32", "float64"):  # as a recipe reads them
        here, there = (soundfile.read(tmp_path / name, dtype=dtype) for name in ("a.wav", "a.flac"))
        assert np.array_equal(here[0], there[0])
        assert here[1] == there[1]
    assert (tmp_path / "a.flac").stat().st_size < (tmp_path / "a.wav").stat().st_size
    assert transfer.pcm_sha256(tmp_path / "a.wav") == transfer.pcm_sha256(tmp_path / "a.flac")


@pytest.mark.parametrize("frames", [1, 100, 1151, 1152, 1153, 64_512, 64_513, 200_001])
def test_speech_of_any_length_keeps_its_samples_in_short_blocks(tmp_path: Path, frames: int) -> None:
    soundfile.write(tmp_path / "a.wav", speech(3, frames=max(frames, 30))[:frames], 8000, "PCM_16")
    if transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac"):
        assert np.array_equal(raw(tmp_path / "a.wav"), raw(tmp_path / "a.flac"))
    else:
        assert frames <= 100  # not smaller than so short a WAV


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_any_rate_of_speech_stays_its_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", speech(2), rate, "PCM_16")
    assert transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac")
    assert soundfile.info(tmp_path / "a.flac").samplerate == rate


ODD = {
    "a list before the sound": wav(PCM16, extra=b"LIST\x06\0\0\0INFOxx"),
    "a chunk of odd length": wav(PCM16, extra=b"junk\x03\0\0\0abc\0"),
    "chunks after the sound": wav(PCM16) + b"LIST\x04\0\0\0INFO",
    "an unknown length, written to a pipe": wav(PCM16, length=0xFFFFFFFF),
    "a length of nothing": wav(PCM16, length=0),
    "cut short": wav(PCM16)[: -len(PCM16) // 2],
    "cut within a sample": wav(PCM16)[:-1],
    "half a sample too much": wav(PCM16 + b"\0"),
    "no sound": wav(b""),
    "a header alone": wav(b"")[:20],
    "not audio": b"#!/bin/sh\n" * 100,
    "empty": b"",
    "a compressed sound by name": wav(PCM16, tag=0x11),
    "no format": b"RIFF\x24\0\0\0WAVEdata\x04\0\0\0abcd",
    "12 bits said": wav(PCM16, bits=16).replace(struct.pack("<HH", 2, 16), struct.pack("<HH", 2, 12), 1),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_keeps_its_samples_or_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.wav").write_bytes(ODD[name])
    if transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac"):
        assert np.array_equal(raw(tmp_path / "a.wav"), raw(tmp_path / "a.flac"))
        assert len(raw(tmp_path / "a.flac")) > 0
    assert (tmp_path / "a.wav").read_bytes() == ODD[name]
    assert {p.name for p in tmp_path.iterdir()} <= {"a.wav", "a.flac"}


@pytest.mark.parametrize("name", ["a list before the sound", "a chunk of odd length", "chunks after the sound"])
def test_more_chunks_do_not_keep_a_file_from_being_encoded(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.wav").write_bytes(ODD[name])
    assert transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac")
    assert raw(tmp_path / "a.flac")[:, 0].tolist() == (np.frombuffer(PCM16, "<i2").astype(int) << 16).tolist()


@pytest.mark.parametrize("subtype", ["PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"])
def test_what_is_not_integer_pcm_stays_as_it_is(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", speech(3), RATE, subtype)
    assert not transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_what_flac_would_not_make_smaller_stays_as_it_is(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).integers(-(2**15), 2**15, RATE).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", noise, RATE, "PCM_16")
    assert not transfer.encode(tmp_path / "a.wav", tmp_path / "a.flac")


@pytest.fixture
def staged(tmp_path: Path) -> bundle.Bundle:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    soundfile.write(corpus / "a.wav", speech(1), RATE, "PCM_16")
    (corpus / "twin.wav").write_bytes((corpus / "a.wav").read_bytes())
    soundfile.write(corpus / "float.wav", speech(2), RATE, "FLOAT")
    soundfile.write(corpus / "b.flac", speech(3), RATE, "PCM_16")
    (corpus / "base.nemo").write_bytes(b"weights")
    names = ("a.wav", "twin.wav", "float.wav", "b.flac")
    rows = [{"audio_filepath": name, "text": name, "duration": 1.0, "term": name} for name in names]
    write_manifest(corpus / "train.jsonl", rows)
    write_manifest(corpus / "validation.jsonl", rows[:1])
    named = {name: corpus / f"{name}.jsonl" for name in ("train", "validation")}
    return bundle.stage(tmp_path / "bundle", named, corpus / "base.nemo", link=True)


def test_a_bundle_is_sent_as_flac_and_its_rows_find_their_way_home(staged: bundle.Bundle, tmp_path: Path) -> None:
    sent = transfer.as_flac(staged, tmp_path / "sent")
    rows = read_manifest(sent.root / "data" / "train.jsonl")
    there = [str(row["audio_filepath"]) for row in rows]
    assert [Path(name).suffix for name in there] == [".flac", ".flac", ".wav", ".flac"]
    assert len(set(there)) == 4  # the twin stays a row of its own
    before = read_manifest(staged.root / "data" / "train.jsonl")
    for old, new in zip(before, rows, strict=True):
        assert {**old, "audio_filepath": ""} == {**new, "audio_filepath": ""}
        one, other = staged.root / "data" / old["audio_filepath"], sent.root / "data" / new["audio_filepath"]
        assert np.array_equal(soundfile.read(one)[0], soundfile.read(other)[0])
    assert [sent.homeward[f"train:{name}"] for name in there] == ["a.wav", "twin.wav", "float.wav", "b.flac"]
    write_manifest(tmp_path / "home" / "offline_hyps.jsonl", rows)
    bundle.bring_home(tmp_path / "home", "train", sent.homeward)
    home = [row["audio_filepath"] for row in read_manifest(tmp_path / "home" / "offline_hyps.jsonl")]
    assert home == ["a.wav", "twin.wav", "float.wav", "b.flac"]


def test_the_index_of_what_is_sent_holds_for_every_file_of_it(staged: bundle.Bundle, tmp_path: Path) -> None:
    sent = transfer.as_flac(staged, tmp_path / "sent")
    files = json.loads((sent.root / bundle.INDEX).read_text())["files"]
    lying = {p.relative_to(sent.root).as_posix() for p in sent.root.rglob("*") if p.is_file()}
    assert lying == {*files, bundle.INDEX, "files.json"}
    for name, facts in files.items():
        assert (sha256_of(sent.root / name), (sent.root / name).stat().st_size) == (facts["sha256"], facts["bytes"])
    assert sent.bytes == sum(facts["bytes"] for facts in files.values()) < staged.bytes
    assert (sent.root / "base.nemo").is_symlink()
    assert sent.digest != staged.digest


def test_what_is_whole_is_used_again_and_what_is_not_is_made_anew(staged: bundle.Bundle, tmp_path: Path) -> None:
    sent = transfer.as_flac(staged, tmp_path / "sent")
    (sent.root / "mark").touch()
    assert transfer.as_flac(staged, tmp_path / "sent") == sent
    assert (sent.root / "mark").exists()
    (sent.root / bundle.INDEX).unlink()
    assert transfer.as_flac(staged, tmp_path / "sent") == sent
    assert not (sent.root / "mark").exists()


def test_encoding_pays_on_a_slow_link_only(staged: bundle.Bundle) -> None:
    held = transfer.wav_bytes(staged)
    assert 100_000 < held < 200_000
    assert transfer.flac_pays(held, up_mbit_s=20, cores=2)
    assert not transfer.flac_pays(held, up_mbit_s=10_000, cores=2)
    assert not transfer.flac_pays(0, up_mbit_s=20)


def prepared(run_dir: Path, manifest: Path, link_mbit_s: float | None) -> bundle.Bundle:
    return transfer.prepare_bundle(run_dir, {"train": manifest}, None, link_mbit_s)


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    folder = tmp_path / "user's own"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", speech(number), RATE, "PCM_16")
    rows = [{"audio_filepath": f"{n}.wav", "text": "a", "duration": 1.0} for n in range(3)]
    write_manifest(folder / "m.jsonl", rows)
    return folder / "m.jsonl"


@pytest.mark.parametrize(
    ("link_mbit_s", "suffix"), [(5.0, ".flac"), (None, ".flac"), (math.inf, ".wav"), (1e5, ".wav")]
)
def test_what_is_sent_is_flac_where_that_pays_or_nobody_knows_the_line(
    tmp_path: Path, spoken: Path, link_mbit_s: float | None, suffix: str
) -> None:
    sent = prepared(tmp_path / "run", spoken, link_mbit_s)
    rows = read_manifest(sent.root / "data" / "train.jsonl")
    assert {Path(row["audio_filepath"]).suffix for row in rows} == {suffix}
    assert transfer.sent_bundle(tmp_path / "run") == sent
    # What comes home by the names that were sent has the user's own.
    hyps = [{"audio_filepath": f"/root/parakeet/x/data/{row['audio_filepath']}", "pred_text": "a"} for row in rows]
    write_manifest(tmp_path / "home" / "offline_hyps.jsonl", hyps)
    bundle.bring_home(tmp_path / "home", "train", sent.homeward)
    home = read_manifest(tmp_path / "home" / "offline_hyps.jsonl")
    assert [row["audio_filepath"] for row in home] == ["0.wav", "1.wav", "2.wav"]


def test_what_is_sent_is_chosen_once_a_run(tmp_path: Path, spoken: Path) -> None:
    first = prepared(tmp_path / "run", spoken, math.inf)
    assert prepared(tmp_path / "run", spoken, 0.1) == first == transfer.sent_bundle(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        transfer.sent_bundle(tmp_path / "other")


def test_the_config_that_came_home_finds_the_sound_that_was_sent(tmp_path: Path, spoken: Path) -> None:
    run_dir = tmp_path / "run"
    sent = prepared(run_dir, spoken, None)
    rows = read_manifest(sent.root / "data" / "train.jsonl")
    named = [{**row, "audio_filepath": f"audio/{Path(row['audio_filepath']).name}"} for row in rows]
    write_manifest(run_dir / "data" / "train.jsonl", named)
    bundle.relink(run_dir, sent.root)
    for row in named:
        assert soundfile.info(str(run_dir / "data" / row["audio_filepath"])).format == "FLAC"


def test_our_line_is_known_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer(provider="vast", offer_id="1", gpu="L4", count=1, vram_gb=24, usd_per_hour=Usd("0.3"),
                  trust="marketplace", inet_down_mbps=50)  # fmt: skip
    monkeypatch.delenv("LAUNCHER_UPLINK_MBPS", raising=False)
    assert transfer.link_to(offer) is None
    monkeypatch.setenv("LAUNCHER_UPLINK_MBPS", "20")
    assert transfer.link_to(offer) == 20
    monkeypatch.setenv("LAUNCHER_UPLINK_MBPS", "900")
    assert transfer.link_to(offer) == 50
    assert transfer.link_to(offer.model_copy(update={"provider": "local"})) == math.inf
    monkeypatch.setenv("LAUNCHER_UPLINK_MBPS", "fast")
    with pytest.raises(BadInputError, match="no speed of a line"):
        transfer.link_to(offer)
