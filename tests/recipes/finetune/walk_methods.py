"""Runs in the recipe environment, NeMo imported once: trains, merges and looks at what every method leaves.

python walk_methods.py WORK SPEC.json  ->  one JSON object of what was found
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from recipes.contract import RESULT, write_json
from recipes.finetune.__main__ import main as finetune
from recipes.finetune.spec import FinetuneSpec
from recipes.finetune.watching import Watch
from recipes.merge.__main__ import main as merge_main
from recipes.merge.__main__ import merge
from recipes.merge.spec import MergeSpec
from recipes.methods.registry import METHODS
from recipes.models.opening import open_model

WORK = Path(sys.argv[1])


class Killed(BaseException):
    """As sudden as a kill, for this process lives on: nothing handles it."""


def with_biases(base: Path, out: Path) -> None:
    """The same base with biases in its encoder (random ones), as older and larger bases have them."""
    from nemo.collections.asr.models import ASRModel

    config = ASRModel.restore_from(str(base), return_config=True)
    config.encoder.use_bias = True
    torch.manual_seed(1)
    ASRModel.restore_from(str(base), override_config_path=config, map_location="cpu", strict=False).save_to(str(out))


def train(name: str, given: dict[str, Any], **settings: Any) -> Path:
    """OUT of a run."""
    out, spec = WORK / name, WORK / f"{name}.json"
    write_json(spec, given | settings)
    code = finetune([str(spec), str(out)])
    tempfile.tempdir = None  # the run's own scratch is gone by now
    assert code == 0, (name, code)
    return out


def held(path: Path) -> dict[str, torch.Tensor]:
    with tarfile.open(path) as archive:
        file = archive.extractfile("./model_weights.ckpt")
        assert file is not None
        return torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)


def heard(model: Any) -> list[torch.Tensor]:
    """What the parts put out for the same second of noise: encoder, and joint where there is one."""
    model.eval()
    model.preprocessor.featurizer.dither = 0.0
    sound = torch.randn(1, 16000, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        encoded, _ = model.forward(input_signal=sound, input_signal_length=torch.tensor([16000]))
        said, _, _ = model.decoder(targets=torch.tensor([[1, 5, 2]]), target_length=torch.tensor([3]))
        return [encoded, model.joint.joint(encoded.transpose(1, 2), said.transpose(1, 2))]


def look(method: str, spec: dict[str, Any], out: Path) -> dict[str, Any]:
    """Merged and unmerged side by side."""
    from nemo.collections.asr.models import ASRModel

    base_file, merged_file = Path(spec["base"]), out / "adapted_model.nemo"
    base, merged = held(base_file), held(merged_file)
    plain = open_model(str(base_file), is_path=True)
    before = heard(plain)
    settings = FinetuneSpec.model_validate(spec).method_settings
    METHODS[method].prepare(plain, settings)
    trainable = sum(p.numel() for p in plain.parameters() if p.requires_grad)
    identity = all(torch.equal(a, b) for a, b in zip(before, heard(plain), strict=True))
    best = next((out / "checkpoints").glob("best-*"))
    state = torch.load(best / "state.pt", weights_only=True)
    METHODS[method].restore(plain, state)
    unmerged, stock = heard(plain), heard(ASRModel.restore_from(str(merged_file), map_location="cpu"))
    info = json.loads((out / "training_run_info.json").read_text())
    losses = [v["train_loss"] for v in info["validations"] if v["train_loss"] is not None]
    changed = [name for name in base if not torch.equal(base[name], merged[name])]
    return {
        "artifacts": json.loads((out / RESULT).read_text())["artifacts"],
        "same_keys": list(base) == list(merged),
        "more_keys": sorted(set(merged) - set(base)),
        "identity_before_training": identity,
        "trainable": [trainable, info["parameters"]["trainable"]],
        "losses": losses,
        "apart": max(float((a - b).abs().max()) for a, b in zip(unmerged, stock, strict=True)),
        "learned": max(float((a - b).abs().max()) for a, b in zip(before, stock, strict=True)),
        "changed": changed,
        "checkpoint": len(state),
        "tensors": len(base),
        "biases": sum(name.startswith("encoder.layers") and name.endswith("bias") for name in base),
    }


def merged_again(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    """By recipe `merge`: whether it gives the very same tensors."""
    place = WORK / f"{out.name}-again"
    write_json(WORK / "merge.json", {"base": spec["base"], "adapter": str(out)})
    assert merge_main(MergeSpec, merge, [str(WORK / "merge.json"), str(place)]) == 0
    tempfile.tempdir = None
    one, two = held(out / "adapted_model.nemo"), held(place / "merged.nemo")
    same = list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)
    return {"same": same, "metrics": json.loads((place / RESULT).read_text())["metrics"]}


def refusal(base: str, adapter: Path) -> tuple[int, str]:
    """Exit code and words of a merge that is refused."""
    write_json(WORK / "merge.json", {"base": base, "adapter": str(adapter)})
    with contextlib.redirect_stderr(io.StringIO()) as words:
        code = merge_main(MergeSpec, merge, [str(WORK / "merge.json"), str(WORK / "refused")])
    tempfile.tempdir = None
    assert not (WORK / "refused" / "merged.nemo").exists()
    return code, words.getvalue()


def ended(name: str, given: dict[str, Any], **settings: Any) -> tuple[int, str]:
    """Exit code and words of a run that should not come to its end."""
    write_json(WORK / f"{name}.json", given | settings)
    with contextlib.redirect_stderr(io.StringIO()) as words:
        code = finetune([str(WORK / f"{name}.json"), str(WORK / name)])
    tempfile.tempdir = None
    return code, words.getvalue()


@contextlib.contextmanager
def spoiled_gradient() -> Iterator[None]:
    """The first gradient of each step is NaN, of a loss that is finite."""
    as_it_is = Watch.on_before_optimizer_step

    def spoil(self: Watch, trainer: Any, model: Any, optimizer: Any) -> None:
        as_it_is(self, trainer, model, optimizer)
        next(p.grad for p in model.parameters() if p.requires_grad).fill_(float("nan"))

    Watch.on_before_optimizer_step = spoil
    try:
        yield
    finally:
        Watch.on_before_optimizer_step = as_it_is


def with_adapters(base: Path, given: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """What linear_adapter refuses, and how it ends once a weight is NaN."""
    more = {"method": "linear_adapter", "allow_linear_adapter": True}
    found = {"twice": ended("twice", given | {"base": str(base)}, **more)}
    with spoiled_gradient():
        found["spoiled"] = ended("spoiled", given, **more, checkpoint_interval_steps=1)
    return found


@contextlib.contextmanager
def failing(at: int, error: BaseException) -> Iterator[None]:
    """Once, in the forward pass of step `at` (counted from 1)."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel

    step, once = EncDecRNNTBPEModel.training_step, [error]

    def training_step(self: Any, *args: Any) -> Any:
        if once and self.trainer.global_step == at - 1:
            raise once.pop()
        return step(self, *args)

    EncDecRNNTBPEModel.training_step = training_step
    try:
        yield
    finally:
        EncDecRNNTBPEModel.training_step = step


def interrupted(given: dict[str, Any]) -> dict[str, Any]:
    """Weights and optimizer at the end of an unbroken run, of one killed and resumed, of one out of memory."""
    settings = {"max_steps": 12, "validation_interval_steps": 4, "checkpoint_interval_steps": 4}
    settings |= {"method": "lora_decoder", "keep_checkpoints": 1}
    whole = train("whole", given, **settings)
    with failing(7, Killed()), contextlib.suppress(Killed):
        train("broken", given, **settings)
    left = sorted(path.name for path in (WORK / "broken" / "checkpoints").glob("step-*"))
    broken = train("broken", given, **settings)
    with failing(6, torch.OutOfMemoryError("as a GPU says it")):
        smaller = train("smaller", given, **settings)
    last = Path("checkpoints") / "step-00000012" / "state.pt"
    ends = [torch.load(out / last, weights_only=True) for out in (whole, broken)]
    flat = [dict(tensors(end)) for end in ends]
    numbers = json.loads((smaller / "training_run_info.json").read_text())["hyper_parameters"]
    return {
        "left": left,
        "tensors": len(flat[0]),
        "differing": [name for name in flat[0] if not torch.equal(flat[0][name], flat[1][name])],
        "smaller": [numbers["batch_size"], numbers["accumulate"]],
        "as_trained": merged_again(given, smaller)["metrics"]["as_trained"],
    }


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if name or key in ("model", "optimizer"):
                yield from tensors(inner, f"{name}/{key}")
    elif isinstance(value, torch.Tensor):
        yield name, value


def main() -> None:
    given = json.loads(Path(sys.argv[2]).read_text())
    biased = given | {"base": str(WORK / "biased.nemo")}
    from recipes.models.quiet import import_nemo_quietly

    import_nemo_quietly(WORK / "nemo.log")
    with_biases(Path(given["base"]), WORK / "biased.nemo")
    found: dict[str, Any] = {"methods": {}, "merged": {}, "refused": {}}
    for name in METHODS:
        for kind, spec in (("biased", biased), ("unbiased", given)):
            more = {"lora_targets": "attention_and_feed_forward"} if kind == "biased" else {"allow_few_biases": True}
            more |= {"allow_linear_adapter": True} if name == "linear_adapter" else {}
            out = train(f"{name}-{kind}", spec | more, method=name)
            found["methods"][f"{name}-{kind}"] = look(name, spec | more, out)
            if METHODS[name].has_adapter and (kind == "biased" or name == "lora"):
                found["merged"][f"{name}-{kind}"] = merged_again(spec, out)
    lora = WORK / "lora-unbiased" / "adapter.safetensors"
    found["refused"]["other base"] = refusal(biased["base"], lora)
    whole = lora.read_bytes()
    for name, content in {
        "cut": whole[:-100], "flipped": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "text": b"no adapter" * 9,
        "other rank": whole.replace(b'\\"rank\\":16', b'\\"rank\\":17'),
        "no rank": whole.replace(b'\\"rank\\":16', b'\\"rank\\":-1'),
    }.items():  # fmt: skip
        file = WORK / "bad" / f"{name}.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        found["refused"][name] = refusal(given["base"], file)
    found["few biases"] = ended("few", given, method="bitfit")
    found["adapters"] = with_adapters(WORK / "linear_adapter-unbiased" / "adapted_model.nemo", given)
    found["interrupted"] = interrupted(given)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
