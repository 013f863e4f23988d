"""Takes out of a SentencePiece model the paths of the corpus it was trained on; needs nothing but the bytes.

sentencepiece's own protobuf module refuses to load beside many protobuf versions, and a model must be savable.
Numbers are those of sentencepiece_model.proto: ModelProto.trainer_spec = 2; TrainerSpec.input = 1,
model_prefix = 2.
"""

from __future__ import annotations

from collections.abc import Iterator

_TRAINER_SPEC, _PATHS = 2, (1, 2)


def without_training_paths(model: bytes) -> bytes:
    """The same model without its trainer's input and output paths; bytes of any other kind come back as they are."""
    try:
        return b"".join(_kept(number, whole, inner) for number, whole, inner in fields(model))
    except ValueError:
        return model


def _kept(number: int, whole: bytes, inner: bytes | None) -> bytes:
    if number != _TRAINER_SPEC or inner is None:
        return whole
    spec = b"".join(field for name, field, _ in fields(inner) if name not in _PATHS)
    return bytes([_TRAINER_SPEC << 3 | 2]) + varint(len(spec)) + spec


def fields(message: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Each field of a protobuf message: its number, its whole bytes, its content where it has a length.

    ValueError for bytes that are no such message.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = read_varint(message, at)
        inner, kind = None, key & 7
        if kind == 0:
            _, at = read_varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = read_varint(message, at)
            inner, at = message[at : at + size], at + size
        else:
            raise ValueError("not a protobuf message")
        if at > len(message):
            raise ValueError("cut short")
        yield key >> 3, message[start:at], inner


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place of a message, and the place after it; ValueError where there is none."""
    value = shift = 0
    while at < len(message) and shift < 64:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at
    raise ValueError("not a varint")


def varint(value: int) -> bytes:
    """A number as protobuf writes one without a fixed length."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
