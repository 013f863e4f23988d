"""Read what an audio file says of itself, fast: own parsers for WAV and FLAC, libsndfile for the rest."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TAIL = 1 << 16


class HeaderError(Exception):
    """The file is missing, not readable as audio, or cut short; the message says which."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says: samples per second, channels, samples per channel."""

    rate_hz: int
    channels: int
    frames: int
    sound_md5: bytes | None = None  # of the decoded samples (FLAC keeps it)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate_hz


def read_header(path: str | Path) -> Header:
    """The header of an audio file, checked against the file's size (WAV) or its last frame (FLAC).

    Sources: the RIFF/WAVE layout and the FLAC format (RFC 9639). Raises HeaderError. Only regular files are
    opened, so that a pipe or a device cannot hang the caller.
    """
    try:
        # One open and one fstat: on a network disk each further call costs a round trip.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise HeaderError("no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HeaderError(f"cannot be opened ({reason})") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise HeaderError("not a regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if status.st_size == 0:
            raise HeaderError("an empty file (0 bytes)")
        try:
            head = file.read(256)
            if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
                return _wav(file, head, status.st_size) or _other(path)
            if head[:4] == b"fLaC":
                return _flac(file, head, status.st_size)
        except OSError as error:
            raise HeaderError(f"cannot be read ({error.strerror})") from None
    return _other(path)


def _wav(file: BinaryIO, head: bytes, size: int) -> Header | None:
    at, format_chunk = 12, b""
    while True:
        chunk = _at(file, head, at, 8)
        if len(chunk) < 8:
            raise HeaderError("cut short: a WAV header without sound")
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"fmt ":
            format_chunk = _at(file, head, at + 8, min(length, 40))
        elif name == b"data":
            break
        at += 8 + length + (length & 1)
    if len(format_chunk) < 16:
        raise HeaderError("a WAV file without a format")
    _tag, channels, rate, _, block, _ = struct.unpack("<HHIIHH", format_chunk[:16])
    tag = _tag if _tag != 0xFFFE else int.from_bytes(format_chunk[24:26], "little")
    if tag not in {1, 3, 6, 7}:  # compressed (ADPCM, GSM …): samples do not follow from bytes
        return None
    if not (channels and rate and block):
        raise HeaderError("a WAV header with zeros for rate or channels")
    there = size - at - 8
    if length >= 0x7FFF0000:  # written to a pipe: the length was not known
        length = there
    if length > there:
        raise HeaderError(f"cut short: its header promises {length / block / rate:.2f} s, "
                          f"{max(0, there) / block / rate:.2f} s are there")  # fmt: skip
    return Header(rate, channels, length // block)


def _at(file: BinaryIO, head: bytes, at: int, count: int) -> bytes:
    """`count` bytes at an offset, from those already read where they hold it."""
    if at + count <= len(head):
        return head[at : at + count]
    file.seek(at)
    return file.read(count)


def _flac(file: BinaryIO, head: bytes, size: int) -> Header:
    if len(head) < 42 or head[4] & 0x7F:
        raise HeaderError("cut short: a FLAC header without its first block")
    info = head[8:42]
    largest_block, largest_frame = int.from_bytes(info[2:4], "big"), int.from_bytes(info[7:10], "big")
    packed = int.from_bytes(info[10:18], "big")
    rate, channels, frames = packed >> 44, (packed >> 41 & 7) + 1, packed & 0xFFFFFFFFF
    if not rate:
        raise HeaderError("a FLAC header without a rate")
    if not frames:
        raise HeaderError("a FLAC header without a length (its writing was interrupted)")
    reach = min(size, (largest_frame or _TAIL) + 16)
    if len(head) < size:
        file.seek(size - reach)
        tail = file.read(reach)
    else:
        tail = head
    if frames not in _frame_ends(tail, max(int.from_bytes(info[0:2], "big"), largest_block)):
        raise HeaderError(f"cut short: its header promises {frames / rate:.2f} s, its last frame is missing")
    return Header(rate, channels, frames, info[18:34] if any(info[18:34]) else None)


_BLOCKS = {1: 192, **{code: 576 << (code - 2) for code in range(2, 6)}, **{c: 256 << (c - 8) for c in range(8, 16)}}


def _frame_ends(tail: bytes, block: int) -> Iterator[int]:
    """Where each frame that begins in `tail` ends, in samples, the last first.

    Sound can look like a frame header, checksum and all (one file in 20,000 of noise): so a file is whole when one
    of these ends is its length, whatever the others say.
    """
    for start in _sync_codes(tail):
        number, width = _coded_number(tail, start + 4)
        code = tail[start + 2] >> 4
        extra = {6: 1, 7: 2}.get(code, 0)
        rate_extra = {12: 1, 13: 2, 14: 2}.get(tail[start + 2] & 15, 0)
        at = start + 4 + width
        end = at + extra + rate_extra
        if number is None or end >= len(tail) or _crc8(tail[start:end]) != tail[end]:
            continue
        samples = int.from_bytes(tail[at : at + extra], "big") + 1 if extra else _BLOCKS.get(code, 0)
        variable = tail[start + 1] & 1
        yield (number if variable else number * block) + samples


def _sync_codes(tail: bytes) -> Iterator[int]:
    """Places in `tail`, last first, where a frame may begin."""
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if at + 6 < len(tail) and tail[at + 1] in (0xF8, 0xF9):
            yield at


def _coded_number(data: bytes, at: int) -> tuple[int | None, int]:
    """A number in FLAC's extended UTF-8, and its width in bytes."""
    first = data[at]
    if first < 0x80:
        return first, 1
    width = 8 - (first ^ 0xFF).bit_length()
    if width < 2 or width > 7 or at + width > len(data):
        return None, 0
    value = first & (0x7F >> width)
    for byte in data[at + 1 : at + width]:
        if byte >> 6 != 2:
            return None, 0
        value = value << 6 | byte & 0x3F
    return value, width


def _crc8_table() -> bytes:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)  # noqa: PLW2901  (polynomial x^8 + x^2 + x + 1)
        table.append(value & 0xFF)
    return bytes(table)


_CRC8 = _crc8_table()


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def _other(path: str | Path) -> Header:
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise HeaderError(f"not readable as audio ({reason})") from None
    if info.samplerate <= 0 or info.channels <= 0 or info.frames < 0:
        raise HeaderError("not readable as audio (nonsense in its header)")
    return Header(info.samplerate, info.channels, info.frames)
