from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.finetune.fitting import PLENTY, Fitting, Load, Machine, fit, wanted_rows
from recipes.finetune.spec import FinetuneSpec
from recipes.models.shape import shape_of

V2 = "nvidia/parakeet-tdt-0.6b-v2"
LOAD = Load(epoch_rows=5000, longest_s=20.0, longest_tokens=100)


def fitted(gb: float | None, load: Load = LOAD, base: str = V2, **settings: object) -> Fitting:
    given_spec = FinetuneSpec.model_validate(
        {"train_manifest": "t", "validation_manifest": "v", "method": "auto", **settings}
    )
    return fit(shape_of(base), given_spec, load, Machine(gb, half=True, on_gpu=True))


@pytest.mark.parametrize(
    ("gb", "method", "batch", "accumulate"),
    [
        (80, "full", 32, 1),
        (24, "full", 8, 4),
        (16, "full", 2, 16),
        (48, "full", 32, 1),
        (9, "lora_decoder", 4, 8),
        (6, "lora_decoder", 8, 4),
        (4.3, "frozen_encoder", 1, 32),
    ],
)
def test_auto_takes_full_where_it_fits_and_the_largest_batch_that_does(
    gb: float, method: str, batch: int, accumulate: int
) -> None:
    found = fitted(gb)
    assert (found.method, found.batch_size, found.accumulate, found.fits) == (method, batch, accumulate, True)
    assert found.needs_gb <= gb


def test_auto_says_in_words_what_it_chose_and_why() -> None:
    words = fitted(9).words
    assert words[0].startswith("method lora_decoder: full with activation checkpointing needs ")
    assert "GB at batch 1 of 9.0 GB of GPU memory" in words[0]
    assert words[1].startswith("batch 4 x 8 accumulated: 8 would need ")
    assert words[2] == "the joint network takes 1 of a pass's 4 rows at once"
    assert fitted(4.3).words[0].startswith("method frozen_encoder: lora_decoder with activation checkpointing needs ")
    assert fitted(9, method="frozen_encoder", batch_size=4).words == (), "nothing was left to choose"


def test_a_gpu_that_is_too_small_for_anything_is_refused_with_numbers() -> None:
    found = fitted(3)
    assert not found.fits
    assert "full needs" in found.why_not
    assert "frozen_encoder needs" in found.why_not
    assert "3.0 GB of GPU memory" in found.why_not


def test_a_batch_that_was_asked_for_is_never_made_smaller_without_asking() -> None:
    found = fitted(16, method="full", batch_size=32)
    assert not found.fits
    assert "full needs 4" in found.why_not
    assert "full with activation checkpointing needs 2" in found.why_not
    assert "batch_size: auto" in found.why_not


def test_layers_run_again_only_where_a_step_does_not_fit_otherwise_and_it_is_said() -> None:
    roomy, tight, told = fitted(24), fitted(6), fitted(24, method="full", batch_size=32)
    assert not roomy.activation_checkpointing
    assert tight.activation_checkpointing and told.activation_checkpointing
    assert tight.words[0].startswith("method lora_decoder: full with activation checkpointing needs ")
    assert tight.words[-1].startswith("activation checkpointing, a third more time: lora_decoder needs ")
    assert told.words == (f"activation checkpointing, a third more time: {told.words[0].partition(': ')[2]}",)
    assert not fitted(6, activation_checkpointing=False).activation_checkpointing
    assert fitted(80, activation_checkpointing=True).activation_checkpointing
    assert fitted(6, method="frozen_encoder", activation_checkpointing=True).words[-2].startswith("batch")


def test_the_joint_takes_as_many_rows_at_once_as_there_is_memory_for() -> None:
    own = shape_of(V2).fused_batch_size
    assert own == 4
    roomy, plain, tight = (fitted(gb, method="full", batch_size=8) for gb in (80, 24, 22.4))
    assert (roomy.fused_batch_size, plain.fused_batch_size, tight.fused_batch_size) == (8, None, 2)
    assert roomy.needs_gb > plain.needs_gb > tight.needs_gb
    assert roomy.needs_gb <= PLENTY * 80
    assert {found.batch_size for found in (roomy, plain, tight)} == {8}
    asked = fitted(80, method="full", batch_size=8, fused_batch_size=2)
    assert (asked.fused_batch_size, fitted(80, fused_batch_size=None).fused_batch_size) == (2, None)
    assert fitted(80, base="nvidia/parakeet-ctc-0.6b").fused_batch_size is None, "it has no joint"
    assert fitted(None).fused_batch_size is None, "of a CPU's memory nothing is known"


def test_a_batch_that_is_a_step_is_not_halved_and_the_largest_models_fit_small_cards() -> None:
    lean = {"method": "full", "optimizer": "adamw_8bit_in_backward"}
    short = fitted(12, base="nvidia/parakeet-tdt-1.1b", **lean)
    assert not short.fits and short.why_not.endswith("GB at batch 1: batch_size: 1)")
    for base, gb in ((V2, 8), ("nvidia/parakeet-tdt-1.1b", 12)):
        found = fitted(gb, base=base, batch_size=1, **lean)
        assert (found.fits, found.batch_size, found.accumulate) == (True, 1, 1)


@given(st.floats(1, 200), st.integers(1, 10**6), st.integers(1, 7), st.sampled_from(["auto", 1, 6, 24]))
def test_the_rows_of_a_step_never_depend_on_the_machine(
    gb: float, rows: int, accumulate: int, batch: int | str
) -> None:
    load = Load(rows, 20.0, 100)
    settings = {"accumulate_grad_batches": accumulate, "batch_size": batch}
    here, anywhere = fitted(gb, load, **settings), fitted(None, load, **settings)
    assert here.batch_size * here.accumulate == anywhere.batch_size * anywhere.accumulate


@given(st.integers(1, 10**7))
def test_auto_never_wants_more_rows_than_there_are(rows: int) -> None:
    assert 1 <= wanted_rows(rows) <= min(rows, 32)
