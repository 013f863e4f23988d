"""Every method keeps its contract, needs no torch to be judged by, and can be asked for in a spec."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from recipes.finetune.fitting import AUTO, Load, Machine, fit
from recipes.finetune.plan import make_plan
from recipes.finetune.spec import FinetuneSpec
from recipes.methods import registry
from recipes.methods.contract import MethodName, MethodSettings
from recipes.methods.refused import OVERRIDES, REFUSED, refusal
from recipes.methods.registry import METHODS, settings_of_others
from recipes.models.shape import shape_of

BASES = ("nvidia/parakeet-tdt-0.6b-v2", "nvidia/parakeet-ctc-0.6b", "nvidia/parakeet-tdt_ctc-110m")
ALLOWED = dict.fromkeys(OVERRIDES.values(), True)
ROOM = Path(registry.__file__).parent


def spec(method: str, **settings: object) -> FinetuneSpec:
    return FinetuneSpec.model_validate(
        {"train_manifest": "t", "validation_manifest": "v", "method": method, **settings}
    )


def test_the_registry_the_spec_and_the_modules_name_the_same_methods() -> None:
    assert set(METHODS) == set(get_args(MethodName))
    assert all(spec(name, **ALLOWED).method == name for name in (*METHODS, "auto"))
    assert set(AUTO) < set(METHODS)
    told = FinetuneSpec.model_fields["method"].description or ""
    for name, method in METHODS.items():
        assert method.name == name and (ROOM / f"{name}.py").is_file()
        assert f"{name}: " in told, "each is explained where it is asked for"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("base", BASES)
def test_what_learns_is_a_part_of_the_model_and_fits_where_full_does(name: MethodName, base: str) -> None:
    shape, method = shape_of(base), METHODS[name]
    trained = method.trained(shape, MethodSettings())
    assert 0 < trained <= shape.parameters
    assert (trained == shape.parameters) == (name == "full")
    load, machine = Load(5000, 20.0, 100), Machine(48, half=True, on_gpu=True)
    found, full = (fit(shape, spec(asked, batch_size=4, **ALLOWED), load, machine) for asked in (name, "full"))
    assert found.fits and found.method == name and found.needs_gb <= full.needs_gb


def test_only_fields_of_the_spec_are_read_and_those_of_other_methods_mean_nothing() -> None:
    read = {name for method in METHODS.values() for name in method.reads}
    assert read <= set(FinetuneSpec.model_fields)
    assert settings_of_others("full") == settings_of_others("frozen_encoder") == settings_of_others("ia3") == read
    for name in ("lora", "lora_decoder", "dora"):
        assert settings_of_others(name) == {"allow_few_biases", "allow_linear_adapter", "adapter_dim"}


@pytest.mark.parametrize("name", [*REFUSED, "QLoRA", "prompt-tuning"])
def test_what_is_not_offered_is_refused_by_name_with_the_reason_and_what_to_take_instead(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is not offered: .* Take lora"):
        spec(name)
    assert set(REFUSED) & set(METHODS) == set(OVERRIDES)
    assert refusal("lore") is None, "a misspelling is not a refusal"


@pytest.mark.parametrize("name", OVERRIDES)
def test_what_can_be_had_all_the_same_says_how(name: str) -> None:
    with pytest.raises(ValidationError, match=f"or set {OVERRIDES[name]}: true"):
        spec(name)
    assert spec(name, **{OVERRIDES[name]: True}).method == name
    assert spec("lora", **{OVERRIDES[name]: True}).method == "lora"


def test_the_settings_of_lora_come_out_as_numbers() -> None:
    made = spec("lora", lora_rank=8).method_settings
    assert (made.lora_alpha, made.lora_scaling) == (16.0, 2.0)
    assert spec("lora", lora_rank=8, lora_alpha=4).method_settings.lora_scaling == 0.5
    shape = shape_of(BASES[0])
    attention = METHODS["lora"].trained(shape, made)
    both = spec("lora", lora_rank=8, lora_targets="attention_and_feed_forward").method_settings
    wider = METHODS["lora"].trained(shape, both)
    assert attention == 8 * 8 * 1024 * 24 and wider == 3.5 * attention
    numbers = {"epoch_rows": 100, "train_hours": 1.0, "batch_size": 4, "accumulate": 1, "precision": "32"}
    rates = {name: make_plan(spec(name), **numbers).learning_rate for name in ("full", "lora", "auto")}
    assert rates == {"full": 3e-5, "lora": 3e-4, "auto": 3e-5}
    assert make_plan(spec("lora", learning_rate=1e-5), **numbers).learning_rate == 1e-5


def test_no_module_of_a_method_needs_torch_until_a_model_is_at_hand() -> None:
    heavy = {"torch", "nemo", "peft", "safetensors", "lightning"}
    for path in ROOM.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not heavy & {name.split(".")[0] for name in names}, path.name
