"""Makes the extended base that is then fine-tuned, once: a run that is resumed takes up the one that is there.

OUT/vocabulary/tokenizer.model        the tokenizer of the extended base
OUT/vocabulary/proof.jsonl            what the base wrote of the old language before, and the extended one after
OUT/vocabulary/vocabulary.json        ExtensionInfo, written last
OUT/vocabulary/<base>-extended.nemo   the base with its new vocabulary, not trained yet; stays where it was made
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recipes.contract import EventLog, RecipeExit, RecipeFailure, sha256_of, write_json
from recipes.extend_vocabulary import proof
from recipes.extend_vocabulary.checking import old_rows
from recipes.extend_vocabulary.merging import Merged, merge, replace, spelled_otherwise, train_tokenizer
from recipes.extend_vocabulary.spec import ExtendVocabularySpec
from recipes.extend_vocabulary.surgery import Lowest, change_tokenizer, tokenizer_of, watching
from recipes.finetune import data
from recipes.finetune.beside import Beside
from recipes.finetune.spec import FinetuneSpec
from recipes.manifest import write_manifest
from recipes.models.decoding import set_greedy_graphs
from recipes.models.opening import open_model, scratch_in
from recipes.models.saving import save_model

FOLDER, INFO, PROOF, TOKENIZER = "vocabulary", "vocabulary.json", "proof.jsonl", "tokenizer.model"
#: Raised where the same inputs make another base than before.
VERSION = 1
LOOK_S = 0.5


class SpellingInfo(BaseModel):
    """How a tokenizer writes the training texts."""

    texts_with_unknown: int = Field(description="Texts that it cannot write without unknown tokens.")
    tokens_per_text: float


class ExtensionInfo(BaseModel):
    """What became of the vocabulary: vocabulary.json."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    made_from: str = Field(description="SHA-256 over all that decides what the extended base is.")
    base: str = Field(description="Pretrained name, or the file's own name without its folder.")
    vocabulary: Literal["merge", "replace"]
    pieces_before: int
    pieces_after: int
    kept_pieces: int = Field(description="Pieces whose weights are the base's.")
    new_pieces: list[str] = Field(description="By their ids, which in a merge come after all that were.")
    left_out_pieces: list[str] = Field(description="They would have spelled texts of the general set anew.")
    general_texts_spelled_otherwise: int = Field(description="Of those that the base can spell.")
    training_texts: int
    training_before: SpellingInfo
    training_after: SpellingInfo
    proof_clips: int
    proof_identical: dict[str, int] = Field(description="Clips written the same before and after, by decoder.")
    file: str = Field(description="The extended base, beside this file.")
    file_sha256: str


def prepare(spec: FinetuneSpec, out: Path, sets: data.Sets, events: EventLog) -> tuple[FinetuneSpec, Beside]:
    """The extended base, made or found in OUT; several processes of one machine share the first one's.

    Raises RecipeFailure(BAD_INPUT): a tokenizer with nothing new, a base that cannot be extended; GATE_SAID_NO where
    the old language did not stay what it was.
    """
    assert isinstance(spec, ExtendVocabularySpec)
    folder, made_from = out / FOLDER, _made_from(spec, sets)
    found = _found(folder, made_from)
    if int(os.environ.get("LOCAL_RANK", "0")):
        while found is None:  # whoever started this process ends it, should the first one fail
            time.sleep(LOOK_S)
            found = _found(folder, made_from)
    elif found is None:
        events.emit("phase", name="extending the vocabulary")
        found = _extend(spec, folder, sets, events, made_from)
    events.emit("note", message=_in_words(found))
    beside = Beside(
        recipe="extend_vocabulary",
        base_identity=made_from,
        artifacts=tuple(f"{FOLDER}/{name}" for name in (INFO, TOKENIZER, *([PROOF] if found.proof_clips else []))),
        metrics={
            "pieces_before": found.pieces_before, "pieces_after": found.pieces_after,
            "proof_clips": found.proof_clips, "proof_identical": found.proof_identical,
        },
        tells_stage=True,
    )  # fmt: skip
    return spec.as_finetune(folder / found.file), beside


def _made_from(spec: ExtendVocabularySpec, sets: data.Sets) -> str:
    base = sha256_of(Path(spec.base)) if spec.base_is_path else spec.base
    if spec.tokenizer is not None:
        pieces: Any = sha256_of(Path(spec.tokenizer))
    else:
        pieces = [spec.tokenizer_pieces, [row.text for row in sets.train]]
    old = [row.text for row in old_rows(spec, sets)]
    parts = [VERSION, base, spec.vocabulary, pieces, old, spec.proof_clips]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _found(folder: Path, made_from: str) -> ExtensionInfo | None:
    """The extended base of an earlier attempt, where it is whole and of the same inputs."""
    try:
        info = ExtensionInfo.model_validate_json((folder / INFO).read_text(encoding="utf-8"))
        whole = info.made_from == made_from and sha256_of(folder / info.file) == info.file_sha256
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return info if whole else None


def _extend(
    spec: ExtendVocabularySpec, folder: Path, sets: data.Sets, events: EventLog, made_from: str
) -> ExtensionInfo:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO).unlink(missing_ok=True)
    scratch_in(folder / ".work")
    model = open_model(spec.base, is_path=spec.base_is_path, trusted=spec.trust_base)
    model.eval()
    set_greedy_graphs(model, use_cuda_graphs=False)  # a graph replayed would not tell its logits
    base, rows, texts = tokenizer_of(model), old_rows(spec, sets), [row.text for row in sets.train]
    old_texts = [row.text for row in rows]
    merged = _merged(spec, base, texts, old_texts)
    heard = proof.chosen(rows, spec.proof_clips, spec.max_duration_s) if spec.proves else []
    lowest = Lowest()
    with watching(model, lowest):
        before = proof.texts_of(model, heard)
    change_tokenizer(model, merged, folder / ".tokenizer", lowest)
    compared = proof.compared(heard, before, proof.texts_of(model, heard))
    if heard:
        write_manifest(folder / PROOF, compared)
    for decoder in before if heard else ():
        fault = proof.fault_of(compared, decoder)
        if fault is not None:
            raise RecipeFailure(
                RecipeExit.GATE_SAID_NO, f"{fault} (all of them: {FOLDER}/{PROOF}). Nothing was trained"
            )
    stem = Path(spec.base).name.removesuffix(".nemo")
    file = folder / f"{stem}-extended.nemo"
    (folder / TOKENIZER).write_bytes(merged.model)
    save_model(model, file)
    info = ExtensionInfo(
        made_from=made_from,
        base=Path(spec.base).name if spec.base_is_path else spec.base,
        vocabulary=spec.vocabulary,
        pieces_before=merged.base_size,
        pieces_after=len(merged.sources),
        kept_pieces=len(merged.sources) - len(merged.new),
        new_pieces=list(merged.new),
        left_out_pieces=list(merged.left_out),
        general_texts_spelled_otherwise=spelled_otherwise(base, merged.model, old_texts),
        training_texts=len(texts),
        training_before=_spelling(base, texts),
        training_after=_spelling(merged.model, texts),
        proof_clips=len(heard),
        proof_identical={
            decoder: sum(row["identical"] for row in compared if row["decoder"] == decoder)
            for decoder in (before if heard else ())
        },
        file=file.name,
        file_sha256=sha256_of(file),
    )
    write_json(folder / INFO, info.model_dump())
    del model
    for scratch in (".work", ".tokenizer"):
        data.forget(folder / scratch)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if info.training_after.texts_with_unknown:
        told = f"{info.training_after.texts_with_unknown} of {len(texts)} training texts"
        events.emit("warning", message=f"{told} still hold what the new vocabulary cannot write")
    return info


def _merged(spec: ExtendVocabularySpec, base: bytes, texts: list[str], old_texts: list[str]) -> Merged:
    if spec.tokenizer is not None:
        other = Path(spec.tokenizer).read_bytes()
    else:
        other = train_tokenizer(texts, spec.tokenizer_pieces, base)
    return merge(base, other, old_texts, texts) if spec.vocabulary == "merge" else replace(base, other)


def _spelling(model: bytes, texts: list[str]) -> SpellingInfo:
    from sentencepiece import SentencePieceProcessor

    spell = SentencePieceProcessor(model_proto=model)
    ids = [spell.encode(text) for text in texts]
    unknown = sum(spell.unk_id() in each for each in ids)
    return SpellingInfo(texts_with_unknown=unknown, tokens_per_text=round(sum(map(len, ids)) / max(1, len(texts)), 2))


def _in_words(info: ExtensionInfo) -> str:
    words = f"vocabulary: {info.pieces_before} → {info.pieces_after} pieces, {len(info.new_pieces)} of them new"
    if info.left_out_pieces:
        words += f" ({len(info.left_out_pieces)} left out that would respell the general set)"
    unknown = f"{info.training_before.texts_with_unknown} → {info.training_after.texts_with_unknown}"
    words += f"; training texts it cannot write: {unknown} of {info.training_texts}"
    for decoder, same in info.proof_identical.items():
        words += f"; {same} of {info.proof_clips} clips of the general set as before ({decoder})"
    return words
