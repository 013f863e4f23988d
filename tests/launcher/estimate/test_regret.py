from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench" / "regret.py"


@pytest.fixture(scope="module")
def regret() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_regret", BENCH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_regret"] = module
    spec.loader.exec_module(module)
    return module


def test_our_choice_stays_close_to_the_best_and_below_the_rules_of_thumb(regret: ModuleType) -> None:
    found = regret.measure(offers=200, markets=4, hours=(0.5, 10.0, 100.0))
    assert found["missed"] == []
    against = found["against_oracle"]
    assert against["measured"]["mean"] <= 1.05
    assert against["arithmetic"]["mean"] <= 1.20
    for ours in ("measured", "arithmetic"):
        assert against[ours]["total"] < against["cheapest_per_hour"]["total"] < against["always_l40s"]["total"]


def test_the_benchs_speeds_are_of_gpus_that_the_table_knows_and_no_constant_names_one(regret: ModuleType) -> None:
    from launcher.offers import canonical
    from recipes.constants import TABLE

    text = TABLE.read_text(encoding="utf-8")
    for gpu in regret.SPEEDS:
        known = canonical(gpu)
        assert known
        assert known.name == gpu
        assert gpu not in text, "a constant fitted to one GPU would make the bench a mirror"
