"""Makes recordings of many formats, each a tone, for the tests of importing and checking."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile


def tone(
    seconds: float = 1.0, rate: int = 16_000, hz: float = 440.0, channels: int = 1, level: float = 0.5
) -> np.ndarray:
    """A sine of `level`, as float32 (channels, samples)."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


def write(path: Path, sound: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> Path:
    """A file that libsndfile can write; the suffix is the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower().lstrip(".")
    kind = {"aif": "AIFF", "oga": "OGG", "opus": "OGG"}.get(suffix, suffix.upper())
    with soundfile.SoundFile(str(path), "w", rate, len(sound), subtype=subtype, format=kind) as file:
        file.write(sound.T)
    return path


def encode(path: Path, sound: np.ndarray, rate: int, codec: str, container: str | None = None) -> Path:
    """A file that FFmpeg's encoders write: mp3, aac (m4a), g722, opus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.layout = layout
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format.name, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size or None
        )
        at = 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            part.pts, part.time_base = at, Fraction(1, rate)
            at += part.samples
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


def pitch(path: Path) -> float:
    """The strongest frequency in a file, Hz."""
    sound, rate = soundfile.read(path)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * rate / len(sound))


def loudness(path: Path) -> float:
    """Root mean square of a file, full scale 1; the ends, where codecs ring, left out."""
    sound, _ = soundfile.read(path)
    edge = len(sound) // 10
    return float(np.sqrt(np.mean(np.square(sound[edge:-edge]))))
