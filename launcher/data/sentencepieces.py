"""Read a SentencePiece model without its library: which pieces it has, and how it normalises text."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_NORMAL, _USER_DEFINED = 1, 4
_SPACE = "▁"


class PiecesError(ValueError):
    """The bytes are not a SentencePiece model."""


@dataclass
class Pieces:
    """The pieces of a tokenizer and the questions a manifest asks of them."""

    pieces: frozenset[str]
    user_defined: tuple[str, ...] = ()
    byte_fallback: bool = False
    charsmap: Charsmap | None = None
    _longest: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self._longest = max(map(len, self.pieces), default=1)

    def missing(self, word: str) -> str:
        """The characters of a word (no white space in it) that would become `<unk>`; empty when all is covered.

        A trained model holds each of its characters as a piece of its own; where one was edited so that it does
        not, a word still counts as covered when pieces can be laid end to end along it.
        """
        if self.byte_fallback:
            return ""
        for symbol in self.user_defined:
            word = word.replace(symbol, " ")
        if self.charsmap is not None:
            word = self.charsmap.normalise(word)
        lacking = [c for c in word if c not in self.pieces and c != " "]
        if lacking and self._covers(_SPACE + word):
            return ""
        return "".join(dict.fromkeys(lacking))

    def _covers(self, word: str) -> bool:
        reached = [True] + [False] * len(word)
        for start, here in enumerate(reached):
            if here:
                for end in range(start + 1, min(len(word), start + self._longest) + 1):
                    reached[end] |= word[start:end] in self.pieces
        return reached[-1]


class Charsmap:
    """The normalisation table of a model: a double-array trie over UTF-8, longest match first.

    Layout: SentencePiece's `precompiled_charsmap`, a little-endian length, a Darts-clone array of 32-bit units,
    then the replacements, each ended by a zero byte.
    """

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 8:
            raise PiecesError("its normalisation table is cut short")
        size = int.from_bytes(blob[:4], "little")
        if size % 4 or 4 + size > len(blob) or not size:
            raise PiecesError("its normalisation table is damaged")
        self._units = struct.unpack(f"<{size // 4}I", blob[4 : 4 + size])
        self._replacements = blob[4 + size :]

    def normalise(self, text: str) -> str:
        """`text` as the model sees it."""
        data, out, at = text.encode("utf-8", "replace"), bytearray(), 0
        while at < len(data):
            length, value = self._longest_match(data, at)
            if length:
                end = self._replacements.find(b"\0", value)
                out += self._replacements[value : end if end >= 0 else None]
                at += length
            else:
                width = 1 if data[at] < 0x80 else 2 if data[at] < 0xE0 else 3 if data[at] < 0xF0 else 4
                out += data[at : at + width]
                at += width
        return out.decode("utf-8", "replace")

    def _longest_match(self, data: bytes, at: int) -> tuple[int, int]:
        units = self._units
        node = _offset(units[0])
        best = (0, 0)
        for length, byte in enumerate(data[at:], 1):
            node ^= byte
            if node >= len(units) or units[node] & 0x800000FF != byte:
                break
            unit = units[node]
            node ^= _offset(unit)
            if unit >> 8 & 1 and node < len(units):
                best = (length, units[node] & 0x7FFFFFFF)
        return best


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


def read_model(data: bytes) -> Pieces:
    """The pieces of a SentencePiece model file. Raises PiecesError when `data` is not one.

    Field numbers are those of `sentencepiece_model.proto`: pieces 1 {piece 1, type 3}, trainer 2 {byte_fallback 35},
    normaliser 3 {precompiled_charsmap 2}.
    """
    pieces: set[str] = set()
    user_defined: list[str] = []
    byte_fallback, charsmap = False, None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text, kind = "", _NORMAL
            for inner, content in _fields(value):
                if inner == 1 and isinstance(content, bytes):
                    text = content.decode("utf-8", "replace")
                elif inner == 3 and isinstance(content, int):
                    kind = content
            if kind == _USER_DEFINED:
                user_defined.append(text)
            if kind in {_NORMAL, _USER_DEFINED}:
                pieces.add(text)
        elif number == 2 and isinstance(value, bytes):
            byte_fallback = any(inner == 35 and content == 1 for inner, content in _fields(value))
        elif number == 3 and isinstance(value, bytes):
            blob = next((c for inner, c in _fields(value) if inner == 2 and isinstance(c, bytes)), b"")
            charsmap = Charsmap(blob) if blob else None
    if not pieces:
        raise PiecesError("no pieces in it")
    longest_first = tuple(sorted(user_defined, key=len, reverse=True))
    return Pieces(frozenset(pieces), longest_first, byte_fallback, charsmap)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol-buffer message: numbers as int, the rest as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in {1, 5}:
            length = 8 if kind == 1 else 4
        else:
            raise PiecesError("not a SentencePiece model")
        if at + length > len(data):
            raise PiecesError("cut short")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise PiecesError("cut short")
