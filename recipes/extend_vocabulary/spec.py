"""The settings of recipe `extend_vocabulary`: those of `finetune`, and what becomes of the vocabulary. No torch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from recipes.extend_vocabulary.pieces import NORMAL, NoPieces, read_pieces
from recipes.finetune.spec import DATA_FIELDS as OF_FINETUNE
from recipes.finetune.spec import FinetuneSpec, PositiveInt
from recipes.models.shape import Shape

#: Methods that leave the decoder and joint as they are: rows of new pieces would never learn.
_HEADLESS = ("lora", "dora", "ia3", "bitfit")


class ExtendVocabularySpec(FinetuneSpec):
    """Everything `python -m recipes.extend_vocabulary SPEC.json OUT/` takes; SPEC.json is this object, flat."""

    vocabulary: Literal["merge", "replace"] = Field(
        default="merge",
        description="merge: the new pieces come after the base's own, and what it knew it still knows. replace: only "
        "the new ones are left, for a language alone; a piece that both have keeps what the base learned of it.",
    )
    tokenizer: str | None = Field(
        default=None,
        description="A SentencePiece .model of the new language; null: one is trained on the training texts.",
    )
    tokenizer_pieces: PositiveInt = Field(
        default=256,
        description="Pieces of the model that is trained where tokenizer is null: some hundreds for an alphabet near "
        "the base's own, 1,024 and more for another script. Each costs memory in the joint network.",
    )
    proof_clips: int = Field(
        default=30,
        ge=0,
        le=10_000,
        strict=True,
        description="Clips of the general set that are transcribed before and after the vocabulary grew, before any "
        "training: all must stay the same (of 30, one may differ), or the run stops. 0: no proof. replace has none.",
    )

    @field_validator("method")
    @classmethod
    def _trains_the_head(cls, name: str) -> str:
        if name in _HEADLESS:
            raise ValueError(
                f"{name} leaves the decoder and joint as they are, where the new pieces are: take lora_decoder, "
                "which trains both, or frozen_encoder, full or auto"
            )
        return name

    @property
    def proves(self) -> bool:
        """Whether the old language is transcribed before and after."""
        return self.vocabulary == "merge" and self.proof_clips > 0

    def as_finetune(self, base: Path) -> FinetuneSpec:
        """The settings that are left once the base is extended: those of recipe finetune."""
        own = {name: getattr(self, name) for name in FinetuneSpec.model_fields}
        own |= {"base": str(base), "trust_base": None, "allow_unsupported_base": True}
        return FinetuneSpec.model_construct(**own)

    def resolved(self, folder: Path) -> ExtendVocabularySpec:
        """The same with absolute paths: a relative one is taken from `folder`, or from the working directory."""
        made = super().resolved(folder)
        assert isinstance(made, ExtendVocabularySpec)
        if made.tokenizer is None:
            return made
        path = Path(made.tokenizer).expanduser()
        beside = (folder / path).absolute()
        return made.model_copy(
            update={"tokenizer": str(beside if beside.exists() or not path.exists() else path.absolute())}
        )

    def shape_in_training(self, base: Shape) -> Shape:
        """The base's shape with as many new pieces as there can be: the joint's memory grows with them."""
        more = self.tokenizer_pieces
        if self.tokenizer is not None:
            with suppress(OSError, NoPieces):  # said where the file is looked at
                more = len(read_pieces(Path(self.tokenizer).read_bytes()).pieces)
        rows = more if self.vocabulary == "merge" else more - base.vocabulary
        extra = rows * (base.joint_hidden * 2 + 1)  # about: a row of the joint and an embedding
        return replace(base, vocabulary=base.vocabulary + rows, parameters=max(1.0, base.parameters + extra))


def fault_of_tokenizer(path: Path) -> tuple[str, str] | None:
    """Why a file cannot be the new language's tokenizer, and what to do: (problem, fix)."""
    make = "Train one with SentencePiece, or leave `tokenizer` out: then one is trained on the training texts."
    try:
        found = read_pieces(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror or error}.", make
    except NoPieces as error:
        hint = " (vocab.txt and tokenizer.vocab are lists for people)" if path.suffix in (".txt", ".vocab") else ""
        return f"{error}.", f"Name the tokenizer.model{hint}. {make}"
    if found.kind not in ("bpe", "unigram"):
        return f"it splits texts into {found.kind}s.", make
    if sum(piece.type == NORMAL for piece in found.pieces) < 2:
        return "it has next to no pieces.", make
    return None


def fault_without_general() -> tuple[str, str]:
    """What is wrong, and what to do, where the old language has no clips: (problem, fix)."""
    return (
        "missing: speech of what the base knows already is transcribed before and after, to prove that nothing of it "
        "was lost, and replayed so that nothing is.",
        "Give a general set (everyday speech in the base's language), or set proof_clips: 0 to go on unproven, or "
        "vocabulary: replace for the new language alone.",
    )


def fault_of_job(spec: ExtendVocabularySpec, *, has_general: bool) -> tuple[tuple[str, str], str, str] | None:
    """What is wrong with a job of this recipe, before anything is planned: (section and key, problem, fix)."""
    if spec.tokenizer is not None and (fault := fault_of_tokenizer(Path(spec.tokenizer))):
        return ("spec", "tokenizer"), *fault
    if spec.proves and not has_general:
        return ("data", "general"), *fault_without_general()
    return None


#: Filled in by the launcher from a job's `data`.
DATA_FIELDS = OF_FINETUNE

SPEC = ExtendVocabularySpec
SUMMARY = "Teach a base a language that its vocabulary cannot write, without losing what it knows; then fine-tune it."
