"""Recipe extend_vocabulary on random tiny bases: what is kept, what is new, what is refused, how it goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from finetune_harness import Recipe, events
from second_language import second_language

from recipes.contract import RecipeExit, damaged, read_complete
from recipes.finetune.stages import WORDS

pytestmark = pytest.mark.nemo
Walk = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def walk(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The runs of walk_vocabulary.py, and what it found of them."""
    work = tmp_path_factory.mktemp("vocabulary")
    second_language(work / "train.jsonl", 12, 1)
    second_language(work / "validation.jsonl", 4, 2)
    manifests = {
        "train_manifest": str(work / "train.jsonl"), "validation_manifest": str(work / "validation.jsonl"),
        "general_manifest": str(recipe.data / "general.jsonl"),
        "general_validation_manifest": str(recipe.data / "general_validation.jsonl"),
    }  # fmt: skip
    spec = recipe.spec(work, **manifests, max_steps=6, validation_interval_steps=3, tokenizer_pieces=60)
    script = repo / "tests" / "recipes" / "finetune" / "walk_vocabulary.py"
    command = [str(recipe.python), str(script), str(work), str(spec), str(recipe.bases)]
    done = subprocess.run(command, env=recipe.environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (work / "stderr").write_text(done.stderr, encoding="utf-8")
    return work, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["tdt", "hybrid"])
def test_the_base_keeps_every_row_its_loss_and_what_it_writes(walk: Walk, name: str) -> None:
    assert walk[1]["codes"][name] == 0
    found = walk[1]["models"][name]
    heads = {"decoder.prediction.embed.weight", "joint.joint_net.1.weight", "joint.joint_net.1.bias"}
    ctc = {"ctc_decoder.decoder_layers.0.weight", "ctc_decoder.decoder_layers.0.bias"}
    assert set(found["grown"]) == heads | (ctc if name == "hybrid" else set())
    assert found["others_equal"] and found["old_rows_equal"] and found["rows_after_equal"]
    assert found["new_weights"] == 0.0 and found["new_bias_below"] >= 10.0 and found["embeddings"] > 0.0
    base, *after = found["losses"]
    assert "TDT" in base and after == [base, base]
    size = found["info"]["pieces_after"]
    assert found["blanks"] == [found["info"]["pieces_before"], size, size]
    assert found["config"] == [size] * 3 and found["pieces"] and found["decoding_as_before"]
    assert found["learned"] > 0.0, "new rows learn"
    clips = found["info"]["proof_clips"]
    same = found["info"]["proof_identical"]
    assert clips == 16 and same == dict.fromkeys(["transducer", "ctc"][: len(same)], clips)
    assert ("ctc" in same) == (name == "hybrid")


@pytest.mark.parametrize("name", ["tdt", "hybrid"])
def test_what_became_of_the_vocabulary_comes_home_with_the_model(walk: Walk, name: str) -> None:
    out = walk[0] / name / "out"
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed)
    told = ["vocabulary/vocabulary.json", "vocabulary/tokenizer.model", "vocabulary/proof.jsonl"]
    names = [artifact.path for artifact in listed]
    assert set(told) < set(names) and names.index("adapted_model.nemo") < names.index(told[0])
    proof = [json.loads(line) for line in (out / told[2]).read_text(encoding="utf-8").splitlines()]
    assert len(proof) == 16 * (2 if name == "hybrid" else 1)
    assert all(row["identical"] and row["before"] == row["after"] for row in proof)
    assert len({row["before"] for row in proof if row["decoder"] == "transducer"}) > 8, "it writes something"
    info = json.loads((out / "training_run_info.json").read_text(encoding="utf-8"))
    assert info["recipe"] == "extend_vocabulary"
    spelling = walk[1]["models"][name]["info"]
    assert spelling["training_before"]["texts_with_unknown"] > 0 == spelling["training_after"]["texts_with_unknown"]
    stages = events(out, "stage")
    assert [event["step"] for event in stages] == [0, 3, 6] and all(event["name"] in WORDS for event in stages)


def test_a_replaced_vocabulary_keeps_the_rows_of_pieces_that_both_have(walk: Walk) -> None:
    info = walk[1]["replaced"]
    assert walk[1]["codes"]["replace"] == 0
    assert info["pieces_after"] == info["kept_pieces"] + len(info["new_pieces"]) and info["kept_pieces"] > 10
    names = [artifact.path for artifact in read_complete(walk[0] / "replace" / "out") or ()]
    assert names[:2] == ["adapted_model.nemo", "adapter.safetensors"], "an adapter of a base that does not come home"
    assert info["proof_clips"] == 0 and not (walk[0] / "replace/out/vocabulary/proof.jsonl").exists()


def test_a_resumed_run_takes_up_the_extended_base_and_makes_the_same_again_where_it_is_gone(walk: Walk) -> None:
    found = walk[1]["resumed"]
    assert found["codes"] == [RecipeExit.STOPPED_AT_LIMIT, 0, 0]
    assert found["kept"] and found["extended"] == 1 and found["same_again"]
    assert len(found["resumed_from"]) == 2


def test_an_old_language_that_changed_stops_the_run_before_any_training(walk: Walk) -> None:
    out = walk[0] / "failed" / "out"
    assert walk[1]["codes"]["failed"] == RecipeExit.GATE_SAID_NO
    message = events(out, "failure")[0]["message"]
    assert "of 16 clips of the old language otherwise" in message and "Nothing was trained" in message
    assert not events(out, "progress") and not (out / "adapted_model.nemo").exists()
    rows = [json.loads(line) for line in (out / "vocabulary/proof.jsonl").read_text(encoding="utf-8").splitlines()]
    assert not all(row["identical"] for row in rows)


def test_a_file_that_is_no_tokenizer_and_an_old_language_without_clips_are_bad_input(walk: Walk) -> None:
    assert walk[1]["codes"]["bad"] == walk[1]["codes"]["alone"] == RecipeExit.BAD_INPUT
    said = (walk[0] / "stderr").read_text(encoding="utf-8")
    assert "bad.model: not a SentencePiece model. Name the tokenizer.model" in said
    assert "general_validation_manifest: missing" in said and "proof_clips: 0" in said


def test_merging_keeps_every_id_and_the_spelling_of_the_old_language(walk: Walk) -> None:
    for found in walk[1]["merging"]:
        assert found["ids_stay"] and found["size_told"] and found["same_texts_same_bytes"]
        assert found["left_out"] and found["otherwise"] == 0 < found["otherwise_appended"], found["kind"]
        assert found["unknown"] == 0 < found["unknown_before"] and found["shared"] > 10
        nothing, unused, _ = found["refused"]
        assert "nothing new: the base has all" in nothing and "training texts use none" in unused


def test_every_method_that_leaves_the_head_alone_is_refused() -> None:
    from recipes.extend_vocabulary.spec import ExtendVocabularySpec

    for method in ("lora", "dora", "ia3", "bitfit"):
        with pytest.raises(ValueError, match="take lora_decoder"):
            ExtendVocabularySpec(method=method, train_manifest="a", validation_manifest="b")
