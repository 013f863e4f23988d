"""Decode one recording of any format into 16 kHz mono 16-bit FLAC or WAV, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.data.headers import HeaderError, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]  # (channels, frames)

RATE_HZ = 16_000
MIN_SECONDS = 0.1  # NeMo's own lower bound: shorter clips would be dropped in training
AUDIO_SUFFIXES = frozenset({
    ".mp3", ".m4a", ".m4b", ".mp4", ".aac", ".ogg", ".oga", ".opus", ".flac", ".wav", ".wave", ".aif", ".aiff",
    ".aifc", ".caf", ".wma", ".amr", ".awb", ".webm", ".mka", ".mkv", ".mov", ".3gp", ".au", ".snd", ".w64", ".rf64",
    ".g722", ".gsm", ".ulaw", ".ul", ".alaw", ".al", ".sln", ".sln16",
})  # fmt: skip
# Files without a header: the suffix is all there is to say what they hold (the names telephony uses).
_HEADERLESS: dict[str, tuple[str, dict[str, str]]] = {
    ".g722": ("g722", {}),
    ".gsm": ("gsm", {}),
    ".ulaw": ("mulaw", {"sample_rate": "8000"}),
    ".ul": ("mulaw", {"sample_rate": "8000"}),
    ".alaw": ("alaw", {"sample_rate": "8000"}),
    ".al": ("alaw", {"sample_rate": "8000"}),
    ".sln": ("s16le", {"sample_rate": "8000"}),
    ".sln16": ("s16le", {"sample_rate": "16000"}),
}
# Containers that hold sound and nothing else; a playlist posing as audio must not open files or URLs.
_FORMATS = (
    "mp3,mov,mp4,m4a,3gp,3g2,mj2,aac,ogg,flac,wav,aiff,caf,asf,amr,amrnb,amrwb,matroska,webm,au,w64,"
    "g722,gsm,mulaw,alaw,s16le"
)
_PADS_THE_END = frozenset({"wav", "ogg", "mov,mp4,m4a,3gp,3g2,mj2"})  # decoded to the end of the last packet
_MAX_PADDING_S = 0.2
_EXACT_LENGTH = frozenset({"ogg", "wav", "w64", "flac", "aiff", "caf", "au", "mov,mp4,m4a,3gp,3g2,mj2"})
_DEAD_CHANNEL = 1e-4  # power against the loudest channel: 40 dB down is cable noise, not a second microphone
_CANCELLED = 0.05  # power left after mixing: less means that the channels are each other's mirror image
_OVERDRIVEN = 1.5  # a float peak above this is a scale other than ±1, not the overshoot of a lossy codec


class DecodeError(Exception):
    """This recording cannot be used; the message is the `why` of the skipped list."""


@dataclass(frozen=True)
class Source:
    """What a recording was before conversion."""

    format: str
    rate_hz: int
    channels: int

    def __str__(self) -> str:
        count = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.format}, {self.rate_hz / 1000:g} kHz {count}"


@dataclass(frozen=True)
class Converted:
    """One finished output file: length in samples at 16 kHz, its size, and what it was made from."""

    frames: int
    size_bytes: int
    source: Source
    peak: int  # of the 16-bit output; 0 is digital silence

    @property
    def duration_s(self) -> float:
        """The real length of the output in seconds."""
        return self.frames / RATE_HZ


@dataclass
class _Mix:
    """How channels become one: the mean of these channels, times a gain."""

    keep: list[int] | None = None
    gain: float = 1.0


@dataclass
class _Stats:
    """What a first pass heard."""

    frames: int = 0
    peak: float = 0.0
    mixed_power: float = 0.0
    power: list[float] = field(default_factory=list)

    def better_mix(self) -> _Mix | None:
        """Another way to mix, when the plain mean would weaken, cancel or clip what was recorded."""
        loudest = max(self.power, default=0.0)
        keep = [i for i, power in enumerate(self.power) if power > _DEAD_CHANNEL * loudest]
        if len(keep) > 1 and self.mixed_power < _CANCELLED * loudest:
            keep = [self.power.index(loudest)]
        gain = 1.0 / self.peak if self.peak > _OVERDRIVEN else 1.0
        if loudest > 0 and (gain != 1.0 or len(keep) < len(self.power)):
            return _Mix(keep, gain)
        return None


def convert(source: Path, target: Path, segment: tuple[float, float] | None = None) -> Converted:
    """Write `source` to `target` (its suffix, .flac or .wav, is the format) at 16 kHz, mono, 16 bit.

    `segment` is (start, length) in seconds for a part of the recording. Loudness is kept: channels are averaged,
    after leaving out those with nothing on them; mirror-image channels, which would cancel, give the louder one.
    The target appears whole or not at all. Raises DecodeError when the recording cannot be used, OSError when
    the disk cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        stats, described, peak, frames = _write(source, part, target.suffix, _Mix(), segment)
        mix = stats.better_mix()
        if mix is not None:
            stats, described, peak, frames = _write(source, part, target.suffix, mix, segment)
        if frames < MIN_SECONDS * RATE_HZ:
            raise DecodeError(f"only {frames / RATE_HZ:.3f} s of sound in it (at least {MIN_SECONDS} s is needed)")
        try:
            whole = read_header(part).frames == frames
        except HeaderError:
            whole = False
        if not whole:  # soundfile does not say so when its last flush finds no room
            raise OSError(errno.ENOSPC, "the disk is full")
        size = part.stat().st_size
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return Converted(frames, size, described, peak)


def _write(
    source: Path, part: Path, suffix: str, mix: _Mix, segment: tuple[float, float] | None
) -> tuple[_Stats, Source, int, int]:
    """One pass from recording to file: (what was heard, what it was, 16-bit peak, frames written)."""
    import numpy as np
    import soundfile

    stats, peak, written = _Stats(), 0, 0
    start, stop = _bounds(segment)
    with soundfile.SoundFile(
        part, "w", RATE_HZ, 1, subtype="PCM_16", format="FLAC" if suffix == ".flac" else "WAV"
    ) as out:
        decoder = _Decoder(source)
        for block in decoder.mono_16k(mix, stats):
            seen = stats.frames
            stats.frames += len(block)
            part_of = block[max(0, start - seen) : None if stop is None else max(0, stop - seen)]
            # 32768 and back: 16-bit, 16 kHz, mono recordings come through bit for bit.
            pcm = np.clip(np.rint(part_of * 32768.0), -32768, 32767).astype(np.int16)
            if len(pcm):
                peak = max(peak, int(np.abs(pcm.astype(np.int32)).max()))
                _all_written(out, pcm)
                written += len(pcm)
    if stop is not None and stats.frames < stop - RATE_HZ // 20:
        raise DecodeError(f"the part asked for ends at {stop / RATE_HZ:g} s, the recording at "
                          f"{stats.frames / RATE_HZ:g} s")  # fmt: skip
    return stats, decoder.source, peak, written


def _all_written(out: Any, pcm: NDArray[np.int16]) -> None:
    import soundfile

    try:
        out.write(pcm)
    except (AssertionError, soundfile.SoundFileRuntimeError) as error:
        # soundfile only says that fewer samples went out than came in.
        raise OSError(errno.ENOSPC, "the disk is full") from error


def _bounds(segment: tuple[float, float] | None) -> tuple[int, int | None]:
    if segment is None:
        return 0, None
    start, length = segment
    return round(start * RATE_HZ), round((start + length) * RATE_HZ)


class _Decoder:
    """Reads one recording with FFmpeg's libraries, packet by packet, and notices when it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = Source("", 0, 0)

    def mono_16k(self, mix: _Mix, stats: _Stats) -> Iterator[Samples]:
        """Blocks of one-dimensional float samples in ±1 at 16 kHz; fills `stats` (but its `frames`) on the way."""
        import av
        import av.error

        try:
            if self.path.stat().st_size == 0:
                raise DecodeError("an empty file (0 bytes)")
            _refuse_cut(self.path)
            with self.path.open("rb") as file:
                yield from self._read(file, mix, stats)
        except av.error.FFmpegError as error:
            raise DecodeError(f"not readable as audio ({_plain(error)})") from error
        except (PermissionError, IsADirectoryError, FileNotFoundError) as error:
            raise DecodeError(f"cannot be opened ({error.strerror})") from error

    def _read(self, file: Any, mix: _Mix, stats: _Stats) -> Iterator[Samples]:
        import av

        suffix = self.path.suffix.lower()
        forced, options = _HEADERLESS.get(suffix, (None, {}))
        # The open file, not its name, goes to FFmpeg: names may look like protocols or patterns to it.
        guards = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        with av.open(file, "r", format=forced, options={**guards, **options}) as container:
            if not container.streams.audio:
                raise DecodeError("no sound track in it")
            stream = container.streams.audio[0]
            stream.thread_type = "NONE"  # workers are processes: threads on top would only fight
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            family = container.format.name
            exact = family in _EXACT_LENGTH or (family == "mp3" and _mp3_knows_length(self.path))
            decoded_s = 0.0
            held: list[Samples] = []  # what lies beyond the declared end: the padding of the last packet, or more
            resampler: _Resampler | None = None
            for frame, rate in self._frames(container, stream):
                if resampler is None or resampler.rate != rate:
                    if resampler is not None:
                        yield from resampler.flush()
                    resampler = _Resampler(rate)
                    if not self.source.rate_hz:
                        self.source = Source(_name(family, suffix), rate, stream.codec_context.channels or len(frame))
                before, decoded_s = decoded_s, decoded_s + frame.shape[1] / rate
                inside, beyond = frame, frame[:, :0]
                if declared and decoded_s > declared and family in _PADS_THE_END:
                    at = max(0, round((declared - before) * rate))
                    inside, beyond = frame[:, :at], frame[:, at:]
                if inside.shape[1]:
                    yield from resampler.push(_downmix(inside, mix, stats))
                if beyond.shape[1]:
                    held.append(beyond)
                    if sum(part.shape[1] for part in held) > _MAX_PADDING_S * rate:
                        declared = None  # the declaration was wrong: all of it is sound
                        for part in held:
                            yield from resampler.push(_downmix(part, mix, stats))
                        held = []
            if resampler is None:
                raise DecodeError("no sound in it")
            yield from resampler.flush()
            if exact and declared and decoded_s < declared - max(0.1, 0.02 * declared):
                raise DecodeError(f"cut short: its header promises {declared:.1f} s, {decoded_s:.1f} s are there")

    @staticmethod
    def _frames(container: Any, stream: Any) -> Iterator[tuple[Samples, int]]:
        """Decoded frames as float (channels, n) and their rate; a rare bad packet is passed over."""
        import av.error

        packets = bad = 0
        for packet in container.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                bad += 1
                # Streams cut from a longer one open with a packet or two that lean on what is gone.
                if bad > 2 + packets // 100:
                    raise DecodeError(f"damaged: {bad} of its first {packets} packets do not decode") from None
                continue
            for frame in frames:
                if frame.samples:
                    yield _to_float(frame), frame.sample_rate
        if packets and bad * 2 > packets:
            raise DecodeError("damaged: most of it does not decode")


class _Resampler:
    """Mono float at one rate to 16 kHz (libswresample's windowed-sinc filter); 16 kHz passes untouched."""

    def __init__(self, rate: int) -> None:
        import av

        self.rate = rate
        self._engine = None if rate == RATE_HZ else av.AudioResampler(format="fltp", layout="mono", rate=RATE_HZ)

    def push(self, mono: Samples) -> Iterator[Samples]:
        import av

        if self._engine is None:
            yield mono
            return
        frame = av.AudioFrame.from_ndarray(mono[None, :], format="fltp", layout="mono")
        frame.sample_rate = self.rate
        for out in self._engine.resample(frame):
            yield out.to_ndarray()[0]

    def flush(self) -> Iterator[Samples]:
        if self._engine is not None:
            for out in self._engine.resample(None):
                yield out.to_ndarray()[0]


def _to_float(frame: Any) -> Samples:
    """A frame of any sample format as float32 (channels, n) in ±1."""
    import numpy as np

    data: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if len(data) > 2:  # the bass channel of a surround recording holds no speech
        names = [channel.name for channel in frame.layout.channels]
        data = data[[i for i, name in enumerate(names) if name not in {"LFE", "LFE2"}] or slice(None)]
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(data.dtype, np.integer):
        return (data / float(-int(np.iinfo(data.dtype).min))).astype(np.float32)
    return np.nan_to_num(data.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _downmix(samples: Samples, mix: _Mix, stats: _Stats) -> Samples:
    """The mean of the channels `mix` keeps, times its gain, as contiguous (n,); notes levels in `stats`."""
    import numpy as np

    if len(stats.power) != len(samples):
        stats.power = [0.0] * len(samples)
    for index, channel in enumerate(samples):
        stats.power[index] += float(np.square(channel, dtype=np.float64).sum())
    usable = mix.keep is not None and max(mix.keep) < len(samples)
    mono = (samples[mix.keep] if usable else samples).mean(axis=0, dtype=np.float32)
    stats.mixed_power += float(np.square(mono, dtype=np.float64).sum())
    stats.peak = max(stats.peak, float(np.abs(mono).max()))
    return np.ascontiguousarray(mono * np.float32(mix.gain), dtype=np.float32)


def _name(container: str, suffix: str) -> str:
    """The name a person knows a format by."""
    known = suffix.lstrip(".")
    if "mp4" in container and known not in {"m4a", "m4b", "mp4", "mov", "3gp"}:
        return "mp4"
    if container in {"mp3", "flac", "wav", "aac", "amr"}:
        return container
    return known or container.split(",", maxsplit=1)[0]


def _refuse_cut(path: Path) -> None:
    """Raise DecodeError for a WAV or Ogg file whose end is missing: FFmpeg plays what is there and says nothing."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"RIFF":
            try:
                read_header(path)
            except HeaderError as error:
                if str(error).startswith("cut short"):
                    raise DecodeError(str(error)) from None
        elif magic == b"OggS":
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_307 - 27))  # the largest page (RFC 3533)
            tail = file.read()
            at = tail.rfind(b"OggS")
            segments = tail[at + 27 : at + 27 + tail[at + 26]] if at >= 0 and at + 27 <= len(tail) else b""
            if not segments or at + 27 + len(segments) + sum(segments) > len(tail):
                raise DecodeError("cut short: its last page is not whole")


def _mp3_knows_length(path: Path) -> bool:
    """Whether an MP3 carries the Xing/Info table; without it its length is a guess from the bit rate."""
    with path.open("rb") as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3" and len(head) == 10:
            tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(tag)
        first = file.read(4096)
    return b"Xing" in first or b"Info" in first


def _plain(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".").lower()
