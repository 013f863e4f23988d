"""Every method, on bases with and without biases: what it trains, leaves, merges and refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from finetune_harness import Recipe, events

from launcher.cli import main
from recipes.contract import sha256_of
from recipes.methods.registry import METHODS

pytestmark = pytest.mark.nemo
KINDS = ("biased", "unbiased")
LAYERS = 2  # of the tiny base
ALONE = ["adapter.safetensors", "adapter.json"]


@pytest.fixture(scope="module")
def walk(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of each method on each base, and what walk_methods.py found of them."""
    work = tmp_path_factory.mktemp("walk")
    assert recipe.bases is not None
    base = str(recipe.bases / "tdt.nemo")
    spec = recipe.spec(work, base=base, max_steps=24, validation_interval_steps=12)
    script = repo / "tests" / "recipes" / "finetune" / "walk_methods.py"
    command = [str(recipe.python), str(script), str(work), str(spec)]
    env = recipe.environment()
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=2400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return work, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_what_it_says_and_leaves_a_plain_model_equal_to_the_unmerged(
    walk: tuple[Path, dict[str, Any]], method: str, kind: str
) -> None:
    found = walk[1]["methods"][f"{method}-{kind}"]
    assert found["biases"] == (34 if kind == "biased" else 12)
    assert found["identity_before_training"] and found["same_keys"] == METHODS[method].is_mergeable
    assert found["apart"] <= 1e-4 and found["learned"] > 0.01
    assert found["losses"][-1] < found["losses"][0]
    counted, told = found["trainable"]
    assert counted == told
    alone = ALONE if METHODS[method].has_adapter else []
    assert found["artifacts"][: len(alone) + 1] == [*alone, "adapted_model.nemo"]
    if method == "linear_adapter":
        assert found["changed"] == [] and all(".adapter_layer." in name for name in found["more_keys"])
        assert found["checkpoint"] == len(found["more_keys"]) == 4 * LAYERS
        return
    if method == "bitfit":
        assert all("bias" in name and "norm" not in name for name in found["changed"]), found["changed"]
        assert ("encoder.layers.0.self_attn.linear_q.bias" in found["changed"]) == (kind == "biased")
        assert "decoder.prediction.dec_rnn.lstm.bias_hh_l0" in found["changed"]
        return
    in_encoder = {name.rsplit(".", 2)[-2] for name in found["changed"] if name.startswith("encoder.")}
    in_head = [name for name in found["changed"] if not name.startswith("encoder.")]
    attention = {"linear_q", "linear_k", "linear_v", "linear_out"}
    adapted = attention | ({"linear1", "linear2"} if kind == "biased" else set())
    if method == "full":
        assert {"batch_norm", "out", *adapted} <= in_encoder and in_head
        assert found["checkpoint"] == found["tensors"]
    else:
        adapted = {"linear_k", "linear_v", "linear2"} if method == "ia3" else adapted
        assert in_encoder == (adapted if METHODS[method].encoder_backward == "inputs" else set())
        assert bool(in_head) == (method not in ("lora", "dora", "ia3"))
        assert found["checkpoint"] < found["tensors"] / 1.5, "a checkpoint holds what was learned, not the base"


def test_the_adapter_alone_makes_the_very_same_model_from_the_base(walk: tuple[Path, dict[str, Any]]) -> None:
    work, found = walk
    assert {name.partition("-")[0] for name in found["merged"]} == {m for m in METHODS if METHODS[m].has_adapter}
    for name, merged in found["merged"].items():
        assert merged["same"] and merged["metrics"]["as_trained"], name
        told = json.loads((work / name / "result.json").read_text())["metrics"]
        assert told["merged_weights_sha256"] == merged["metrics"]["weights_sha256"]
    spec = json.loads((work / "spec.json").read_text())
    told = json.loads((work / "lora-unbiased" / "adapter.json").read_text())
    assert told["base"]["name"] == "tdt.nemo" and told["base"]["sha256"] == sha256_of(Path(spec["base"]))
    assert (told["method"], told["rank"], told["alpha"]) == ("lora", 16, 32.0)
    assert (work / "lora-unbiased" / "adapter.safetensors").stat().st_size < 100_000


def test_an_adapter_of_another_base_or_a_damaged_one_is_refused_with_what_and_why(
    walk: tuple[Path, dict[str, Any]],
) -> None:
    words = {
        "other base": ("the adapter of another base", "learned on tdt.nemo", "give the base"),
        "cut": ("cut.safetensors: damaged", "take the adapter home again"),
        "flipped": ("flipped.safetensors: damaged: content_sha256 is ",),
        "text": ("text.safetensors: damaged, or no safetensors file",),
        "other rank": ("damaged: content_sha256 is ",),
        "no rank": ("header: rank: ", "(it is -1)"),
    }
    assert set(words) == set(walk[1]["refused"])
    for name, (code, said) in walk[1]["refused"].items():
        assert code == 10 and all(part in said for part in words[name]), said
        assert len(said.splitlines()) == 1


def test_bitfit_says_how_little_would_learn_without_biases_and_decoder_only_that_it_teaches_no_sound(
    walk: tuple[Path, dict[str, Any]],
) -> None:
    work, found = walk
    code, said = found["few biases"]
    assert code == 10 and "1,222 parameters (0.440%) would learn. Take lora, or set allow_few_biases: true" in said
    warned = [event["message"] for event in events(work / "decoder_only-biased", "warning")]
    assert any("take lora_decoder" in message for message in warned)
    assert not any("take lora_decoder" in e["message"] for e in events(work / "frozen_encoder-biased", "warning"))


def test_linear_adapter_warns_watches_and_says_that_its_result_is_not_merged(
    walk: tuple[Path, dict[str, Any]],
) -> None:
    work, found = walk
    warned = [event["message"] for event in events(work / "linear_adapter-biased", "warning")]
    assert any("NaN" in message and "cannot be merged" in message for message in warned)
    code, said = found["adapters"]["twice"]
    assert code == 10 and "this base has such adapters already" in said
    code, said = found["adapters"]["spoiled"]
    assert code == 12 and "of 8 tensors that learn hold NaN or infinity after step 1, first encoder.layers.0" in said
    assert not list((work / "spoiled" / "checkpoints").glob("*/state.pt")), "nothing is kept of such weights"


def test_a_run_killed_between_checkpoints_or_out_of_memory_goes_on_with_the_adapter(
    walk: tuple[Path, dict[str, Any]],
) -> None:
    found = walk[1]["interrupted"]
    assert found["left"] == ["step-00000004"], "killed in step 7"
    assert found["differing"] == [] and found["tensors"] == 108  # weights, two moments and the count of each
    assert found["smaller"] == [2, 2] and found["as_trained"]


def test_launcher_merge_writes_a_model_once_and_refuses_what_it_should(
    walk: tuple[Path, dict[str, Any]], recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(recipe.python))
    work, out = walk[0] / "lora_decoder-biased", tmp_path / "made" / "model.nemo"
    command = ["merge", str(walk[0] / "biased.nemo"), str(work), "--out", str(out), "--json", "--home", str(tmp_path)]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["artifacts"] == [{"path": str(out), "bytes": out.stat().st_size, "sha256": sha256_of(out)}]
    trained = json.loads((work / "result.json").read_text())["metrics"]["merged_weights_sha256"]
    assert told["as_trained"] and told["weights_sha256"] == trained
    assert [path.name for path in out.parent.iterdir()] == ["model.nemo"]

    before = out.read_bytes()
    broken = tmp_path / "adapter.safetensors"
    broken.write_bytes((work / "adapter.safetensors").read_bytes()[:-1])
    for changed, words in (
        (command, ("is there already", str(out), "Name another file")),
        ([*command[:2], str(broken), "--out", str(tmp_path / "other.nemo")], (str(broken), "damaged")),
        ([*command[:2], str(tmp_path / "none"), "--out", str(tmp_path / "other.nemo")], ("no such file", "ADAPTER")),
        ([*command[:3], "--out", str(tmp_path / "other.bin")], ("--out", "End it in .nemo")),
        (["merge", str(broken), *command[2:4], str(tmp_path / "other.nemo")], ("is not a .nemo file",)),
    ):
        assert main(changed) == 2
        said = "".join(capsys.readouterr())
        assert all(word in said for word in words), said
    assert out.read_bytes() == before and not list(tmp_path.glob("other*"))


#: The same base, its weights saved with an object beside them that is no weight: loading it runs its maker's code.
FOREIGN = """
import io, pathlib, sys, tarfile
import torch
with tarfile.open(sys.argv[1]) as base, tarfile.open(sys.argv[2], "w") as made:
    for member in base.getmembers():
        content = base.extractfile(member).read() if member.isfile() else b""
        if member.name.endswith(".ckpt"):
            weights = torch.load(io.BytesIO(content), map_location="cpu")
            weights._metadata = {"made by": pathlib.PurePosixPath("a program")}
            torch.save(weights, file := io.BytesIO())
            content = file.getvalue()
        member.size = len(content)
        made.addfile(member, io.BytesIO(content))
"""


def test_launcher_merge_loads_a_base_that_may_run_programs_only_when_told_its_sum(
    walk: tuple[Path, dict[str, Any]], recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(recipe.python))
    work, base, out = walk[0] / "lora_decoder-biased", tmp_path / "foreign.nemo", tmp_path / "made.nemo"
    subprocess.run([str(recipe.python), "-c", FOREIGN, str(walk[0] / "biased.nemo"), str(base)], check=True)
    command = ["merge", str(base), str(work), "--out", str(out), "--home", str(tmp_path)]
    for trusted, words in (([], "more than weights"), (["--trust-base", "0" * 64], "--trust-base is another file's")):
        assert main([*command, *trusted]) == 2
        said = " ".join("".join(capsys.readouterr()).split())
        assert words in said and f"--trust-base {sha256_of(base)}" in said, said
    assert main([*command, "--json", "--trust-base", sha256_of(base)]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["as_trained"] and "runs programs of whoever made it" in told.err
    assert sha256_of(out) == json.loads(told.out)["artifacts"][0]["sha256"]
