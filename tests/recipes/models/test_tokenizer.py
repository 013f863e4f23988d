"""A tokenizer that travels in a .nemo does not tell where its corpus lay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recipes.models.tokenizer import without_training_paths


def field(number: int, content: bytes) -> bytes:
    assert number < 16 and len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


#: A piece, a trainer spec (corpus, prefix, model type 2, another string), a normalizer, in protobuf's wire format.
PIECE, NORMALIZER = field(1, b"\x0a\x01a\x15\x00\x00\x80\x3f"), field(3, b"nmt")
KEPT = b"\x18\x02" + field(5, b"kept")
MODEL = PIECE + field(2, field(1, b"/home/bob/corpus.txt") + KEPT + field(2, b"/home/bob/out")) + NORMALIZER


def test_corpus_and_prefix_go_and_all_else_stays() -> None:
    clean = without_training_paths(MODEL)
    assert clean == PIECE + field(2, KEPT) + NORMALIZER
    assert without_training_paths(clean) == clean


@given(st.binary(max_size=200))
def test_bytes_of_any_other_kind_never_fail(content: bytes) -> None:
    cleaned = without_training_paths(content)
    assert len(cleaned) <= len(content) + 9


def test_a_model_cut_short_comes_back_as_it_is() -> None:
    for end in range(len(MODEL) - len(NORMALIZER) + 1, len(MODEL)):
        assert without_training_paths(MODEL[:end]) == MODEL[:end]
