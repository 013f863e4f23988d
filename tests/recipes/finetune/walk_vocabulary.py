"""Runs in the recipe environment, NeMo imported once: extends the tiny bases' vocabularies and looks at them.

python walk_vocabulary.py WORK SPEC.json BASES  ->  one JSON object of what was found
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from recipes.contract import RecipeFailure, sha256_of, write_json
from recipes.extend_vocabulary import surgery
from recipes.extend_vocabulary.__main__ import main
from recipes.extend_vocabulary.merging import merge, replace, spelled_otherwise, train_tokenizer
from recipes.extend_vocabulary.pieces import read_pieces, with_pieces
from recipes.models.digests import weights_digest

WORK, GIVEN, BASES = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
OLD = ["turn on the kitchen lights", "play some quiet music", "what is the weather today", "open the door"]
OLD += ["the tell tale heart of a lady"]
NEW = ["hola que tal", "buenos días señor", "la canción de mañana", "enciende la luz de la cocina", "abre la puerta"]
NEW += ["el tiempo de hoy es bueno"]


def train(name: str, **settings: Any) -> int:
    """The exit code of a run into WORK/NAME/out."""
    spec = WORK / name / "spec.json"
    if settings or not spec.exists():
        write_json(spec, GIVEN | settings)
    try:
        return main([str(spec), str(WORK / name / "out")])
    finally:
        tempfile.tempdir = None  # the run's own scratch is gone by now


def restored(path: Path) -> Any:
    from nemo.collections.asr.models import ASRModel

    return ASRModel.restore_from(str(path), map_location="cpu")


def weights_of(path: Path) -> str:
    """A digest of the tensors alone: NeMo names the tokenizer's files by chance."""
    return weights_digest(restored(path).state_dict())


def extension(name: str) -> dict[str, Any]:
    """How the extended base and the tuned model of a run differ from the base, as stock NeMo restores them."""
    out = WORK / name / "out"
    info = json.loads((out / "vocabulary" / "vocabulary.json").read_text())
    base = restored(Path(json.loads((WORK / name / "spec.json").read_text())["base"]))
    extended, tuned = restored(out / "vocabulary" / info["file"]), restored(out / "adapted_model.nemo")
    had, has = base.state_dict(), extended.state_dict()
    v, w = info["pieces_before"], info["pieces_after"]
    pieces = SentencePieceProcessor(model_file=str(out / "vocabulary" / "tokenizer.model"))
    grown = [key for key in had if had[key].shape != has[key].shape]
    outputs = [key for key in grown if "embed" not in key]
    biases = [key for key in outputs if key.endswith("bias")]
    return {
        "info": info,
        "grown": sorted(grown),
        "others_equal": all(torch.equal(had[key], has[key]) for key in had if key not in grown),
        "old_rows_equal": all(torch.equal(had[key][:v], has[key][:v]) for key in grown),
        "rows_after_equal": all(torch.equal(had[key][v:], has[key][w:]) for key in grown),
        "new_weights": max(float(has[key][v:w].abs().max()) for key in outputs if key.endswith("weight")),
        "new_bias_below": min(float(had[key][: v + 1].min() - has[key][v:w].max()) for key in biases),
        "embeddings": float(has[next(key for key in grown if "embed" in key)][v:w].abs().max()),
        "losses": [type(model.loss._loss).__name__ for model in (base, extended, tuned)],
        "blanks": [int(model.loss._blank) for model in (base, extended, tuned)],
        "learned": float((tuned.state_dict()[outputs[0]][v:w] - has[outputs[0]][v:w]).abs().max()),
        "pieces": [piece.surface for piece in read_pieces(pieces.serialized_model_proto()).pieces]
        == [pieces.id_to_piece(n) for n in range(w)]
        == tuned.tokenizer.ids_to_tokens(list(range(w))),
        "config": [tuned.cfg.joint.num_classes, tuned.cfg.decoder.vocab_size, len(tuned.cfg.joint.vocabulary)],
        "decoding_as_before": base.cfg.decoding == tuned.cfg.decoding,
    }


def resumed() -> dict[str, Any]:
    """A run that is stopped after its first step, then goes on; once with what it extended gone."""
    out = WORK / "resumed" / "out"
    out.mkdir(parents=True)
    (out / "STOP").touch()
    codes = [train("resumed", base=str(BASES / "tdt.nemo"), max_steps=3)]
    (out / "STOP").unlink()
    file = next((out / "vocabulary").glob("*.nemo"))
    before, weights = (sha256_of(file), file.stat().st_mtime_ns), weights_of(file)
    codes.append(train("resumed"))
    kept = (sha256_of(file), file.stat().st_mtime_ns) == before
    phases = [json.loads(line).get("name") for line in (out / "events.jsonl").read_text().splitlines()]
    (out / "COMPLETE.json").unlink()
    file.unlink()
    codes.append(train("resumed"))
    notes = [json.loads(line).get("message", "") for line in (out / "events.jsonl").read_text().splitlines()]
    return {
        "codes": codes, "kept": kept, "same_again": weights_of(file) == weights,
        "extended": phases.count("extending the vocabulary"),
        "resumed_from": [note for note in notes if note and note.startswith("resumed from")],
    }  # fmt: skip


def trained_tokenizer(kind: str) -> bytes:
    made = io.BytesIO()
    letters = " ".join("abcdefghijklmnopqrstuvwxyz'")
    SentencePieceTrainer.train(
        sentence_iterator=iter([*OLD, letters]), model_writer=made, vocab_size=60, model_type=kind, bos_id=-1,
        eos_id=-1, pad_id=-1, unk_id=0, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    return made.getvalue()


def merged(kind: str) -> dict[str, Any]:
    """What merging does to the spelling of both languages, beside plain appending."""
    base = trained_tokenizer(kind)
    other = train_tokenizer(NEW, 120, base)
    found, swapped = merge(base, other, OLD, NEW), replace(base, other)
    spell = SentencePieceProcessor(model_proto=found.model)
    everything = with_pieces(base, [*found.new, *found.left_out])
    return {
        "kind": read_pieces(base).kind,
        "same_texts_same_bytes": other == train_tokenizer(NEW, 120, base),
        "left_out": list(found.left_out),
        "otherwise": spelled_otherwise(base, found.model, OLD),
        "otherwise_appended": spelled_otherwise(base, everything, OLD),
        "unknown": sum(spell.unk_id() in ids for ids in spell.encode(NEW)),
        "unknown_before": sum(0 in ids for ids in SentencePieceProcessor(model_proto=base).encode(NEW)),
        "ids_stay": [p.surface for p in read_pieces(found.model).pieces[: found.base_size]]
        == [p.surface for p in read_pieces(base).pieces],
        "size_told": spell.get_piece_size() == len(found.sources),
        "shared": sum(source is not None for source in swapped.sources),
        "refused": [refusal(base, base, OLD, NEW), refusal(base, other, OLD, OLD), refusal(base, other, NEW, NEW)],
    }


def refusal(*given: Any) -> str:
    try:
        merge(*given)
    except RecipeFailure as failure:
        return failure.message
    return ""


found: dict[str, Any] = {"merging": [merged(kind) for kind in ("bpe", "unigram")], "codes": {}}
bad = WORK / "bad.model"
bad.write_text("no model", encoding="utf-8")
found["codes"]["bad"] = train("bad", tokenizer=str(bad))
found["codes"]["alone"] = train("alone", general_manifest=None, general_validation_manifest=None)
found["codes"]["tdt"] = train("tdt", base=str(BASES / "tdt.nemo"))
found["codes"]["hybrid"] = train("hybrid", base=str(BASES / "hybrid.nemo"), optimizer="adamw_8bit")
other = {"vocabulary": "replace", "general_manifest": None, "general_validation_manifest": None}
found["codes"]["replace"] = train("replace", base=str(BASES / "tdt.nemo"), method="frozen_encoder", **other)
found["models"] = {name: extension(name) for name in ("tdt", "hybrid")}
found["replaced"] = json.loads((WORK / "replace" / "out" / "vocabulary" / "vocabulary.json").read_text())
found["resumed"] = resumed()
surgery.BELOW = -1000.0  # above all that wins: the old language cannot stay what it was
found["codes"]["failed"] = train("failed", base=str(BASES / "hybrid.nemo"))
sys.stdout.write("\n" + json.dumps(found) + "\n")
