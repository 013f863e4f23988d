"""Looks at what only this recipe takes, before NeMo is imported: the tokenizer, and speech of the old language."""

from __future__ import annotations

from pathlib import Path

from recipes.contract import RecipeExit, RecipeFailure
from recipes.extend_vocabulary.spec import ExtendVocabularySpec, fault_of_tokenizer, fault_without_general
from recipes.finetune import data
from recipes.finetune.spec import FinetuneSpec


def check(spec: FinetuneSpec, sets: data.Sets) -> None:
    """Raise RecipeFailure(BAD_INPUT) for a tokenizer that is none, or an old language that cannot be proven kept."""
    assert isinstance(spec, ExtendVocabularySpec)
    if spec.tokenizer is not None and (fault := fault_of_tokenizer(Path(spec.tokenizer))):
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"tokenizer: {spec.tokenizer}: {' '.join(fault)}")
    if spec.proves and not old_rows(spec, sets):
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"general_validation_manifest: {' '.join(fault_without_general())}")


def old_rows(spec: ExtendVocabularySpec, sets: data.Sets) -> list[data.Row]:
    """Recordings of the old language that there are; held-out ones first."""
    rows = [*sets.general_validation, *sets.general]
    if not rows and spec.general_manifest:  # not loaded where nothing is replayed
        rows = data.load(spec.general_manifest, "general_manifest")
    return rows
