"""Audio as FLAC where the link is the bottleneck: fewer bytes, the same samples, proven file by file.

A bundle is encoded beside itself, before anything is rented: what is sent is a folder of its own, in which all that
did not change is a link to the bundle (`SshHost.put` follows links). NeMo reads FLAC as it is. Its `homeward` and its
`data/` are those of the run from then on: rows come home by the names that were sent.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launcher.bundle import INDEX, Bundle, stage
from launcher.data.headers import HeaderError, read_header
from launcher.offers.offer import Offer
from recipes.contract import sha256_of, write_json
from recipes.manifest import read_manifest, write_manifest

# WAV's integer samples and FLAC's of the same width. libsndfile writes no 32-bit FLAC.
_SUBTYPES = {"PCM_U8": "PCM_S8", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}
_CHANNELS = 8  # FLAC's most
_BLOCK = 1 << 16  # samples read at once
_SPEECH_HZ = 24_000  # above it blocks of 4,096 samples are short enough

# All measured on the 568 recorded prompts of Debian's asterisk-core-sounds-en-wav 1.6.1 (8 kHz, 24.5 MB): FLAC came
# to 0.595 of the WAV bytes (0.611 in libFLAC's blocks), gzip -6 (about what rsync -z makes of WAV on its way) to
# 0.822; 11 to 14 MB of WAV are encoded and checked per second of a core's time.
FLAC_RATIO = 0.60
SENT_RATIO = 0.82
ENCODED_PER_S = 12e6

FLAC, CHOICE = "flac", "sent.json"  # in a run's folder: the bundle encoded, and which one is sent


def prepare_bundle(
    run_dir: Path, manifests: Mapping[str, Path], base: Path | None, link_mbit_s: float | None,
    tokenizer: Path | None = None,
) -> Bundle:  # fmt: skip
    """What will be sent, made before anything is rented: RUN/bundle, or RUN/flac where that pays on the way there.

    `link_mbit_s`: the slower of our uplink and the machine's downlink (`link_to`). None: nobody has told our uplink;
    then it is FLAC, because encoding happens before anything bills: a wrong guess costs seconds here, the other way
    round it costs rented minutes on the line that most people have.
    Decided once a run: what comes home goes by the names that were sent. Raises BadInputError as `bundle.stage` does.
    """
    plain = stage(run_dir / "bundle", manifests, base, link=True, tokenizer=tokenizer)
    choice = run_dir / CHOICE
    try:
        flac = json.loads(choice.read_text(encoding="utf-8"))["folder"] == FLAC
    except (OSError, ValueError, KeyError, TypeError):
        held = wav_bytes(plain)
        flac = held > 0 if link_mbit_s is None else flac_pays(held, link_mbit_s)
        write_json(choice, {"folder": FLAC if flac else "bundle", "link_mbit_s": _said(link_mbit_s)})
    return as_flac(plain, run_dir / FLAC) if flac else plain


def link_to(offer: Offer) -> float | None:
    """Mbit/s from here to a machine: infinite to this one, None where nobody has told how fast our own line is.

    Raises BadInputError for a LAUNCHER_UPLINK_MBPS that is no speed.
    """
    from launcher.estimate.phases import line_of, uplink_mbps

    if offer.provider == "local":
        return math.inf
    ours = uplink_mbps()
    return None if ours is None else min(ours, line_of(offer).down)


def sent_bundle(run_dir: Path) -> Bundle:
    """The bundle that a run sends, for the way home. Raises FileNotFoundError before one was prepared."""
    try:
        folder = json.loads((run_dir / CHOICE).read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        folder = "bundle"  # a run of before there was a choice
    return Bundle.load(run_dir / (FLAC if folder == FLAC else "bundle"))


def flac_pays(wav_bytes: int, up_mbit_s: float, cores: int | None = None) -> bool:
    """Whether sending FLAC saves more time on a link of `up_mbit_s` than encoding takes here."""
    if wav_bytes <= 0 or up_mbit_s <= 0:
        return False
    saved_s = wav_bytes * (SENT_RATIO - FLAC_RATIO) / (up_mbit_s * 1e6 / 8)
    return saved_s > wav_bytes / (ENCODED_PER_S * max(1, cores or os.cpu_count() or 1))


def wav_bytes(bundle: Bundle) -> int:
    """How much of a bundle is WAV."""
    files = _index(bundle)["files"]
    return sum(int(facts["bytes"]) for name, facts in files.items() if name.endswith(".wav"))


def as_flac(bundle: Bundle, root: Path) -> Bundle:
    """The same bundle in `root` with its integer PCM WAV files as FLAC (replaced when half-built, reused when whole).

    Whatever is not exactly that stays as it is: floating point, 32 bit, companded or compressed sound, a header that
    does not agree with its file, sound without a sample, and a file that FLAC would not make smaller.
    """
    try:
        made = Bundle.load(root)
        if json.loads((root / INDEX).read_text(encoding="utf-8")).get("of") == bundle.digest:
            return made
    except (FileNotFoundError, ValueError, KeyError):
        pass
    shutil.rmtree(root, ignore_errors=True)
    (root / "data" / "audio").mkdir(parents=True)
    files: dict[str, dict[str, Any]] = dict(_index(bundle)["files"])
    wavs = sorted(name for name in files if name.startswith("data/audio/") and name.endswith(".wav"))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        flacs = [root / Path(name).with_suffix(".flac") for name in wavs]
        done = list(pool.map(encode, (bundle.root / name for name in wavs), flacs))
    renamed = {name.removeprefix("data/"): f"{name.removeprefix('data/')[:-4]}.flac"
               for name, encoded in zip(wavs, done, strict=True) if encoded}  # fmt: skip
    for before, after in renamed.items():
        del files[f"data/{before}"]
        files[f"data/{after}"] = _facts(root / "data" / after)
    for name in list(files):
        target, source = root / name, bundle.root / name
        if name.startswith("data/") and name.endswith(".jsonl"):
            write_manifest(target, [_row(row, renamed) for row in read_manifest(source)])
            files[name] = _facts(target)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
    homeward = {_moved(key, renamed): here for key, here in bundle.homeward.items()}
    total = sum(int(facts["bytes"]) for facts in files.values())
    write_json(root / "files.json", files)
    digest = sha256_of(root / "files.json")
    index = {"digest": digest, "bytes": total, "files": files, "homeward": homeward, "of": bundle.digest}
    write_json(root / INDEX, index)
    return Bundle(root, digest, total, homeward)


def encode(wav: Path, flac: Path) -> bool:
    """Write `wav` as FLAC, whole or not at all; False when it stays WAV."""
    import soundfile

    part = flac.with_name(f".{flac.name}.part")
    try:
        before = soundfile.info(str(wav))
        header = read_header(wav)
        subtype = _SUBTYPES.get(before.subtype) if before.format in {"WAV", "WAVEX"} else None
        said = (header.rate_hz, header.channels, header.frames)
        if subtype is None or said != (before.samplerate, before.channels, before.frames):
            return False
        if before.frames < 1 or before.channels > _CHANNELS:
            return False
        if subtype == "PCM_16" and before.samplerate <= _SPEECH_HZ and before.channels == 1:
            _in_short_blocks(wav, part, before.samplerate)
        else:
            with soundfile.SoundFile(str(wav)) as source, soundfile.SoundFile(
                str(part), "w", before.samplerate, before.channels, subtype, format="FLAC", compression_level=1.0
            ) as sink:  # fmt: skip
                for block in source.blocks(_BLOCK, dtype="int32"):
                    sink.write(block)
        after = soundfile.info(str(part))
        same = (after.samplerate, after.channels, after.frames) == said and pcm_sha256(part) == pcm_sha256(wav)
        if same and part.stat().st_size < wav.stat().st_size:
            part.replace(flac)
            return True
    except (soundfile.SoundFileError, HeaderError, RuntimeError):
        pass  # whatever libsndfile cannot do, it need not
    finally:
        part.unlink(missing_ok=True)
    return False


def _in_short_blocks(wav: Path, flac: Path, rate_hz: int) -> None:
    """Mono speech by FFmpeg's encoder (PyAV 18.1, libavcodec/flacenc.c), whose blocks can be shorter than libFLAC's.

    4,096 samples are half a second at 8 kHz, in which speech changes: 1,152 saved 1.3% at 8 and at 16 kHz.
    """
    import av
    import soundfile

    try:
        with soundfile.SoundFile(str(wav)) as source, av.open(
            str(flac), "w", format="flac", options={"metadata_header_padding": "0"}
        ) as sink:  # fmt: skip
            stream = sink.add_stream("flac", rate=rate_hz, layout="mono", format="s16")
            stream.codec_context.options = {"compression_level": "8", "frame_size": "1152"}
            at = 0
            for block in source.blocks(_BLOCK - _BLOCK % 1152, dtype="int16"):
                frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout="mono")
                frame.sample_rate, frame.pts = rate_hz, at
                at += len(block)
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise RuntimeError(str(error)) from error


def pcm_sha256(path: Path) -> str:
    """SHA-256 over a file's samples as 32-bit integers (narrower ones in the upper bits), frame by frame."""
    import soundfile

    total = hashlib.sha256()
    with soundfile.SoundFile(str(path)) as file:
        for block in file.blocks(_BLOCK, dtype="int32", always_2d=True):
            total.update(block.astype("<i4", copy=False).tobytes())
    return total.hexdigest()


def _row(row: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    audio = str(row["audio_filepath"])
    return {**row, "audio_filepath": renamed.get(audio, audio)}


def _moved(key: str, renamed: Mapping[str, str]) -> str:
    name, _, audio = key.partition(":")
    return f"{name}:{renamed.get(audio, audio)}"


def _index(bundle: Bundle) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((bundle.root / INDEX).read_text(encoding="utf-8"))
    return held


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _said(mbit_s: float | None) -> float | None:
    return mbit_s if mbit_s is not None and math.isfinite(mbit_s) else None
