"""A job that extends a vocabulary: what is refused before anything is planned, what it costs, what travels."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from offered import job_of as finetune_job
from offered import offer, plan_of

from launcher.bundle import stage
from launcher.errors import BadInputError
from launcher.job import Job, load_job
from launcher.prepare import Prepared
from launcher.runner.steps import AFTER, BEFORE, FINETUNE, steps_of

BASE = "base: nvidia/parakeet-tdt-0.6b-v2"


def tokenizer(path: Path, pieces: int) -> Path:
    """A SentencePiece model of so many pieces, as protobuf's bytes."""
    made = b""
    for number in range(pieces):
        text = f"▁{number}".encode()
        inner = bytes([10, len(text)]) + text + b"\x15" + struct.pack("<f", -float(number))
        made += bytes([10, len(inner)]) + inner
    path.write_bytes(made + bytes([18, 2, 24, 2]))  # trainer_spec.model_type: BPE
    return path


def job_of(folder: Path, spec: str = "", data: str = ", general: m.jsonl") -> Job:
    path = folder / "language.yaml"
    path.write_text(f"recipe: extend_vocabulary\nspec: {{{BASE}{spec}}}\ndata: {{manifest: m.jsonl{data}}}\n")
    return load_job(path)


@pytest.mark.parametrize(
    ("spec", "data", "key", "words", "fix"),
    [
        ("", "", "data.general", "transcribed before and after", "proof_clips: 0"),
        (", tokenizer: gone.model", ", general: m.jsonl", "spec.tokenizer", "cannot be read", "SentencePiece"),
        (", tokenizer: m.jsonl", ", general: m.jsonl", "spec.tokenizer", "not a SentencePiece", "tokenizer.model"),
        (", tokenizer_peices: 9", ", general: m.jsonl", "spec.tokenizer_peices", "", "tokenizer_pieces"),
        (", method: lora", ", general: m.jsonl", "spec.method", "take lora_decoder", ""),
    ],
)
def test_what_could_not_work_is_refused_with_its_key_and_the_way_out(
    folder: Path, spec: str, data: str, key: str, words: str, fix: str
) -> None:
    with pytest.raises(BadInputError) as refused:
        job_of(folder, spec, data)
    error = refused.value
    assert error.key == key and error.line in (2, 3)
    assert words in error.problem and fix in f"{error.problem} {error.fix}"


def test_no_general_set_is_needed_where_nothing_is_to_be_proven(folder: Path) -> None:
    assert job_of(folder, ", proof_clips: 0", "").recipe == "extend_vocabulary"
    assert job_of(folder, ", vocabulary: replace", "").recipe == "extend_vocabulary"


def test_more_pieces_are_more_memory_and_the_surgery_is_in_the_time_and_on_the_disk(
    folder: Path, prepared: Prepared
) -> None:
    gpu = offer(gpu="A100 80GB", vram=80)
    plain = plan_of(finetune_job(folder), prepared, [gpu]).choice.estimate
    few = plan_of(job_of(folder, ", tokenizer_pieces: 64"), prepared, [gpu]).choice.estimate
    many = plan_of(job_of(folder, ", tokenizer_pieces: 4096"), prepared, [gpu]).choice.estimate
    given = tokenizer(folder / "new.model", 4096)
    named = plan_of(job_of(folder, f", tokenizer: {given.name}"), prepared, [gpu]).choice.estimate
    assert plain.needs_gb <= few.needs_gb < many.needs_gb == named.needs_gb
    assert few.phases["train"] > plain.phases["train"] and few.disk_gb > plain.disk_gb + 1


def test_the_tokenizer_travels_and_the_recipe_is_told_where_it_lies(folder: Path, prepared: Prepared) -> None:
    given = tokenizer(folder / "new.model", 40)
    plan = plan_of(job_of(folder, f", tokenizer: {given.name}"), prepared, [offer()])
    assert plan.spec["tokenizer"] == str(given)
    before, train, after = steps_of(plan)
    assert (before.name, train.name, after.name) == (BEFORE, FINETUNE, AFTER)
    assert (before.recipe, train.recipe, after.recipe) == ("evaluate", "extend_vocabulary", "evaluate")
    there = train.spec_there(lambda path: f"/box/{path}")
    assert there["tokenizer"] == "/box/data/tokenizer.model" and there["base"] == "nvidia/parakeet-tdt-0.6b-v2"
    made = stage(folder / "bundle", prepared.manifests(), None, link=True, tokenizer=given)
    assert (made.root / "data" / "tokenizer.model").read_bytes() == given.read_bytes()
    trained = steps_of(plan_of(job_of(folder), prepared, [offer()]))[1]
    assert trained.spec_there(lambda path: f"/box/{path}")["tokenizer"] is None
