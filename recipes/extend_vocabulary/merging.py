"""Which pieces a base gets: those of another tokenizer that it lacks, less those that would respell the old language.

A merged tokenizer must not spell the old language otherwise than the base learned it: its texts are replayed in
training, and a replayed text spelled with new pieces would teach the old language anew. New pieces score lowest, so
that all the joins of a BPE's own pieces are made first; but what is left after them may still be joined by a new
piece (English `▁te` and `la` by a Spanish `▁tela`). Each new piece that any general text would use is left out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.contract import RecipeExit, RecipeFailure
from recipes.extend_vocabulary.pieces import BYTE, NORMAL, UNKNOWN, PieceModel, read_pieces, with_pieces

SPACE = "▁"


@dataclass(frozen=True)
class Merged:
    """A tokenizer for the extended base. `sources`: for each piece, its id in the base, or None where it is new."""

    model: bytes
    sources: tuple[int | None, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]  # they would have respelled the old language
    base_size: int


def train_tokenizer(texts: Sequence[str], size: int, base: bytes) -> bytes:
    """A SentencePiece BPE of about `size` pieces over the texts, as the base's normaliser writes them.

    Fewer where the texts do not hold so many; never less than their letters. The same texts give the same bytes.
    """
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    spell = SentencePieceProcessor(model_proto=base)
    seen = [spell.normalize(text).replace(SPACE, " ").strip() for text in texts]
    seen = [text for text in seen if text]
    letters = {letter for text in seen for letter in text}
    made = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(seen),
        model_writer=made,
        vocab_size=max(size, len(letters) + 3),  # with <unk>, the space, and room for a join
        model_type="bpe",
        normalization_rule_name="identity",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    return made.getvalue()


def merge(base: bytes, other: bytes, old_texts: Sequence[str], new_texts: Sequence[str]) -> Merged:
    """The base's tokenizer with the other's pieces after its own; `old_texts` keep their spelling to the last id.

    RecipeFailure (bad input) where the base's kind cannot grow, where no piece is new, and where none of the new ones
    would be used in `new_texts`, those to be learned.
    """
    held, theirs = read_pieces(base), read_pieces(other)
    if held.kind not in ("bpe", "unigram"):
        kind = held.kind
        message = f"base: its tokenizer splits texts into {kind}s and takes no more pieces: set vocabulary: replace"
        raise RecipeFailure(RecipeExit.BAD_INPUT, message)
    have = {piece.surface for piece in held.pieces}
    wanted = list(dict.fromkeys(p.surface for p in theirs.pieces if p.type == NORMAL and p.surface not in have))
    if not wanted:
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"tokenizer: nothing new: the base has all of its {len(theirs.pieces)} pieces already. Take recipe "
            "finetune, or a tokenizer of the new language",
        )
    new = _without_respelling(base, held, wanted, old_texts)
    if not new:
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"tokenizer: each of its {len(wanted)} new pieces is used by the general set: is that the new language "
            "too? general_manifest is what the base knows already",
        )
    model = with_pieces(base, new)
    if _spelled(base, new_texts) == _spelled(model, new_texts):
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"tokenizer: nothing new: the training texts use none of its {len(new)} new pieces. Take recipe "
            "finetune, or a tokenizer of the language in train_manifest",
        )
    sources = (*range(len(held.pieces)), *(None for _ in new))
    kept = set(new)
    left_out = tuple(surface for surface in wanted if surface not in kept)
    return Merged(model, sources, tuple(new), left_out, len(held.pieces))


def replace(base: bytes, other: bytes) -> Merged:
    """The other tokenizer alone; a piece that both have keeps what the base learned of it."""
    held, theirs = read_pieces(base), read_pieces(other)
    ids = {piece.surface: number for number, piece in enumerate(held.pieces)}
    unknown = next((number for number, piece in enumerate(held.pieces) if piece.type == UNKNOWN), None)
    sources = tuple(unknown if piece.type == UNKNOWN else ids.get(piece.surface) for piece in theirs.pieces)
    new = tuple(piece.surface for piece, source in zip(theirs.pieces, sources, strict=True) if source is None)
    return Merged(other, sources, new, (), len(held.pieces))


def spelled_otherwise(base: bytes, model: bytes, texts: Sequence[str]) -> int:
    """How many texts that the base can spell the other tokenizer spells with other ids."""
    known = _spellable(base, read_pieces(base), texts)
    pairs = zip(_spelled(base, known), _spelled(model, known), strict=True)
    return sum(before != after for before, after in pairs)


def _spelled(model: bytes, texts: Sequence[str]) -> list[list[int]]:
    from sentencepiece import SentencePieceProcessor

    ids: list[list[int]] = SentencePieceProcessor(model_proto=model).encode(list(texts))
    return ids


def _without_respelling(base: bytes, held: PieceModel, wanted: list[str], texts: Sequence[str]) -> list[str]:
    from sentencepiece import SentencePieceProcessor

    texts = _spellable(base, held, texts)
    size = len(held.pieces)
    while wanted:  # leaving one out may bring another into use
        spell = SentencePieceProcessor(model_proto=with_pieces(base, wanted))
        used = {number - size for text in texts for number in spell.encode(text) if number >= size}
        if not used:
            break
        wanted = [surface for number, surface in enumerate(wanted) if number not in used]
    return wanted


def _spellable(base: bytes, held: PieceModel, texts: Sequence[str]) -> list[str]:
    """The texts that the base spells with pieces alone: no <unk> and no bytes, which new pieces are to end."""
    from sentencepiece import SentencePieceProcessor

    spell = SentencePieceProcessor(model_proto=base)
    other = {number for number, piece in enumerate(held.pieces) if piece.type in (UNKNOWN, BYTE)}
    return [text for text in dict.fromkeys(texts) if not other.intersection(spell.encode(text))]
