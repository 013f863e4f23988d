"""A SentencePiece model as its bytes: which pieces it has, and the same with more of them. Needs no library.

Numbers are those of sentencepiece_model.proto: ModelProto.pieces = 1, trainer_spec = 2; SentencePiece.piece = 1,
score = 2, type = 3; TrainerSpec.model_type = 3, vocab_size = 4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.models.tokenizer import fields, read_varint, varint

_PIECE, _TRAINER = 1, 2
_SURFACE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _SIZE = 3, 4
NORMAL, UNKNOWN, BYTE = 1, 2, 6
BPE = 2
KINDS = {1: "unigram", BPE: "bpe", 3: "word", 4: "char"}


class NoPieces(ValueError):  # noqa: N818  (says what is wrong with the bytes)
    """The bytes are no SentencePiece model."""


@dataclass(frozen=True)
class Piece:
    """One piece: as written (a leading space is `▁`), its score (the higher wins), its type in the model."""

    surface: str
    score: float
    type: int


@dataclass(frozen=True)
class PieceModel:
    """What a SentencePiece model says of itself: its pieces by their ids, and unigram, bpe, word or char."""

    pieces: tuple[Piece, ...]
    kind: str


def read_pieces(model: bytes) -> PieceModel:
    """The pieces of a model; raises NoPieces for bytes of any other kind."""
    pieces: list[Piece] = []
    kind = 1
    try:
        for number, _, inner in fields(model):
            if number == _PIECE and inner is not None:
                pieces.append(_piece(inner))
            elif number == _TRAINER and inner is not None:
                kind = next((_value(whole) for name, whole, _ in fields(inner) if name == _MODEL_TYPE), kind)
    except (ValueError, IndexError, struct.error) as error:
        raise NoPieces("not a SentencePiece model") from error
    if not any(piece.type == NORMAL for piece in pieces):
        raise NoPieces("not a SentencePiece model: it has no pieces")
    return PieceModel(tuple(pieces), KINDS.get(kind, "unigram"))


def with_pieces(model: bytes, surfaces: Sequence[str]) -> bytes:
    """The same model with more pieces after its own, whose ids stay; each scores below all before it.

    A BPE joins the best-scored pair first, so what its own pieces can join, they still join first.
    """
    held = read_pieces(model)
    lowest = min(piece.score for piece in held.pieces)
    step = 1.0 if held.kind == "bpe" else 0.001  # of a unigram, scores are logarithms of probabilities
    added = b"".join(_as_field(surface, lowest - step * (n + 1)) for n, surface in enumerate(surfaces))
    parts = list(fields(model))
    last = max(at for at, (number, _, _) in enumerate(parts) if number == _PIECE)
    size = len(held.pieces) + len(surfaces)
    made = [_resized(inner, size) if n == _TRAINER and inner is not None else whole for n, whole, inner in parts]
    return b"".join([*made[: last + 1], added, *made[last + 1 :]])


def _piece(message: bytes) -> Piece:
    surface, score, kind = "", 0.0, NORMAL
    for number, whole, inner in fields(message):
        if number == _SURFACE and inner is not None:
            surface = inner.decode("utf-8")
        elif number == _SCORE:
            (score,) = struct.unpack("<f", whole[1:])
        elif number == _TYPE:
            kind = _value(whole)
    return Piece(surface, score, kind)


def _value(field: bytes) -> int:
    _, at = read_varint(field, 0)
    return read_varint(field, at)[0]


def _as_field(surface: str, score: float) -> bytes:
    text = surface.encode()
    inner = bytes([_SURFACE << 3 | 2]) + varint(len(text)) + text
    inner += bytes([_SCORE << 3 | 5]) + struct.pack("<f", score)
    return bytes([_PIECE << 3 | 2]) + varint(len(inner)) + inner


def _resized(trainer: bytes, size: int) -> bytes:
    kept = b"".join(whole for number, whole, _ in fields(trainer) if number != _SIZE)
    kept += bytes([_SIZE << 3]) + varint(size)
    return bytes([_TRAINER << 3 | 2]) + varint(len(kept)) + kept
