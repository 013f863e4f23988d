"""Reads any audio that libsndfile can and gives a model what it wants: 16 kHz, mono, not too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from recipes.contract import RecipeExit, RecipeFailure

RATE = 16000  # Hz, of every model here
SHORTEST_S = 0.1  # less holds no word, and some encoders fail on it
PLAIN = {("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_16")}


@dataclass(frozen=True)
class Clip:
    """One stretch of one audio file, measured from its header."""

    path: Path
    offset_s: float  # where it begins in the file
    duration_s: float
    plain: bool  # 16 kHz mono and the whole file: the model can read it as it is


def look(path: Path, offset_s: float = 0.0, duration_s: float | None = None) -> Clip:
    """Measure a clip. RecipeFailure (bad input) when the file is missing or libsndfile cannot read it."""
    if not path.is_file():
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"{path}: no such audio file.")
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, _unreadable(path, error)) from error
    whole_s = info.frames / info.samplerate
    rest_s = max(0.0, whole_s - offset_s)
    part_s = rest_s if duration_s is None else min(duration_s, rest_s)
    plain = info.samplerate == RATE and info.channels == 1 and (info.format, info.subtype) in PLAIN
    return Clip(path, offset_s, part_s, plain and offset_s == 0.0 and part_s == whole_s)


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path}: cannot be read as audio ({error}). WAV, FLAC, MP3 and OGG can; for m4a and other formats, "
        "convert first: launcher import FOLDER --out DIR, or ffmpeg -i IN -ar 16000 -ac 1 OUT.wav"
    )


def read(clip: Clip) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The clip's samples, (n,), 16 kHz mono float32; channels averaged, resampled by soxr where needed."""
    try:
        with soundfile.SoundFile(str(clip.path)) as file:
            file.seek(round(clip.offset_s * file.samplerate))
            samples = file.read(round(clip.duration_s * file.samplerate), dtype="float32", always_2d=True)
            rate = file.samplerate
    except soundfile.SoundFileError as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, _unreadable(clip.path, error)) from error
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate != RATE:
        import soxr

        mono = soxr.resample(mono, rate, RATE).astype(np.float32)
    return np.ascontiguousarray(mono)


def windows(
    samples: np.ndarray[Any, np.dtype[np.float32]], longest_s: float
) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Cut samples, (n,), into pieces of at most `longest_s` seconds, each cut in the quietest 50 ms.

    The cut is looked for in the last fifth of each piece, so that it falls between words where it can.
    """
    longest, hop = int(longest_s * RATE), RATE // 20
    while len(samples) > longest:
        search = samples[int(0.8 * longest) : longest]
        frames = search[: len(search) // hop * hop].reshape(-1, hop)
        quietest = int(np.argmin((frames**2).mean(axis=1)))
        cut = int(0.8 * longest) + quietest * hop + hop // 2
        yield samples[:cut]
        samples = samples[cut:]
    yield samples
