from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.constants import figure
from recipes.methods.contract import MethodName
from recipes.methods.registry import METHODS
from recipes.models.memory import training_need
from recipes.models.shape import shape_of
from recipes.optimizers.facts import Saving

REPO = Path(__file__).resolve().parents[3]
V2, V3, BIG = "nvidia/parakeet-tdt-0.6b-v2", "nvidia/parakeet-tdt-0.6b-v3", "nvidia/parakeet-tdt-1.1b"


def needs_gb(
    base: str, method: MethodName = "full", batch: int = 1, seconds: float = 20.0, *, half: bool = True,
    fused: int | None = None,
) -> float:  # fmt: skip
    """GB on a GPU, 4.1 tokens a second: as the reported figures have it."""
    shape = shape_of(base)
    return training_need(
        shape, method, batch, longest_s=seconds, longest_tokens=4.1 * seconds, half=half, on_gpu=True,
        fused_batch_size=fused,
    ).total  # fmt: skip


def test_reported_cases_come_out_as_they_were_reported() -> None:
    assert needs_gb(BIG, batch=2) > 24, "1.1B was out of memory on 24 GB at batch 2 (NeMo #10085)"
    assert needs_gb(V3, batch=8, seconds=30) == pytest.approx(45, rel=0.30), "about 45 GB on an A100-80"
    assert needs_gb(V2, batch=4, seconds=20) < 24, "24 GB is comfortable for 0.6B at batch 4"
    assert needs_gb(V2, batch=1, seconds=20) < 16, "16 GB works with a smaller batch"
    assert needs_gb(V2, batch=1, seconds=20) > 12, "12 GB does not"
    assert needs_gb(V2, "frozen_encoder", batch=8) < 12
    assert needs_gb(V3, "frozen_encoder", batch=1) < 12


def test_a_larger_vocabulary_costs_joint_memory_and_fusing_caps_only_a_part_of_it() -> None:
    v2, v3 = needs_gb(V2, batch=8), needs_gb(V3, batch=8)
    assert v3 > v2 + 10
    fused = needs_gb(V3, batch=8, fused=1)
    assert fused < v3
    assert fused > v2, "every row's gradient is kept whatever is fused"


def test_the_kept_measurements_lie_close_to_the_estimate_and_under_it_with_its_margin() -> None:
    kept = json.loads((REPO / "bench" / "results" / "memory.json").read_text(encoding="utf-8"))
    for row in kept["peaks"]:
        need = training_need(
            shape_of(row["base"]), row["method"], row["batch"], longest_s=kept["seconds"],
            longest_tokens=4.1 * kept["seconds"], half=row["half"], on_gpu=row["on_gpu"],
            saving=Saving(**row.get("saving", {})),
        )  # fmt: skip
        assert row["peak_gb"] <= need.total, row
        assert need.total <= 1.30 * row["peak_gb"], row
        assert need.static == pytest.approx(row["static_gb"], rel=0.02), row
    for figures in kept["saved"].values():
        for name, (_, measured) in figures.items():
            assert figure(f"memory.{name}") == pytest.approx(measured, rel=0.02), name


bases = st.sampled_from([V2, V3, BIG, "nvidia/parakeet-ctc-0.6b", "nvidia/parakeet-rnnt-1.1b", "no-such-model"])
methods = st.sampled_from(list(METHODS))


@given(bases, methods, st.integers(1, 64), st.integers(0, 64), st.floats(0.2, 40), st.floats(0, 40), st.booleans())
def test_more_rows_or_longer_clips_never_need_less_memory(
    base: str, method: MethodName, batch: int, more: int, seconds: float, longer: float, half: bool
) -> None:
    least = needs_gb(base, method, batch, seconds, half=half)
    assert needs_gb(base, method, batch + more, seconds, half=half) >= least
    assert needs_gb(base, method, batch, seconds + longer, half=half) >= least


@given(bases, st.integers(1, 64), st.floats(0.2, 40))
def test_a_frozen_encoder_never_needs_more_memory_than_full(base: str, batch: int, seconds: float) -> None:
    assert needs_gb(base, "frozen_encoder", batch, seconds) <= needs_gb(base, "full", batch, seconds)
