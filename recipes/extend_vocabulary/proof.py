"""Shows that what a model writes of the old language is the same before and after its vocabulary grew."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch

from recipes.finetune.data import Row
from recipes.models.decoding import transcribe_files
from recipes.models.precision import is_out_of_memory

#: Of so many clips one may differ: the last bits of a sum on a GPU can turn a close call.
CLIPS_FOR_ONE = 30
BATCH = 8

Texts = dict[str, list[str]]  # by the decoder that wrote them: transducer, ctc; both in a hybrid


def chosen(rows: Sequence[Row], clips: int, longest_s: float) -> list[Row]:
    """At most so many rows, evenly spread over the set, none longer than `longest_s` seconds."""
    fit = [row for row in rows if row.text and row.duration_s <= longest_s]
    if len(fit) <= clips:
        return fit
    return [fit[number * len(fit) // clips] for number in range(clips)]


def texts_of(model: Any, rows: Sequence[Row]) -> Texts:
    """What each decoder of the model writes, a text a row."""
    if not hasattr(model, "joint"):
        return {"ctc": _decoded(model, rows)}
    texts = {"transducer": _decoded(model, rows)}
    if hasattr(model, "ctc_decoder"):
        before, model.cur_decoder = model.cur_decoder, "ctc"
        try:
            texts["ctc"] = _decoded(model, rows)
        finally:
            model.cur_decoder = before
    return texts


def compared(rows: Sequence[Row], before: Texts, after: Texts) -> list[dict[str, Any]]:
    """A row for each clip and decoder: audio_filepath, decoder, before, after, identical."""
    return [
        {
            "audio_filepath": row.named, "decoder": decoder, "before": old, "after": after[decoder][number],
            "identical": old == after[decoder][number],
        }
        for decoder, texts in before.items()
        for number, (row, old) in enumerate(zip(rows, texts, strict=True))
    ]  # fmt: skip


def fault_of(rows: Sequence[dict[str, Any]], decoder: str) -> str | None:
    """Why the proof failed for a decoder, in words; None where it holds."""
    mine = [row for row in rows if row["decoder"] == decoder]
    changed = [row for row in mine if not row["identical"]]
    if len(changed) <= len(mine) // CLIPS_FOR_ONE:
        return None
    first = changed[0]
    return (
        f"the {decoder} decoder wrote {len(changed)} of {len(mine)} clips of the old language otherwise after the "
        f"vocabulary grew, before any training, such as {first['audio_filepath']}: {first['before']!r} became "
        f"{first['after']!r}"
    )


def _decoded(model: Any, rows: Sequence[Row]) -> list[str]:
    size = BATCH
    while True:
        try:
            return transcribe_files(model, [row.audio for row in rows], size)
        except Exception as error:
            if not is_out_of_memory(error) or size == 1:
                raise
        size //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
