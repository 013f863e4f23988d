"""What a run goes on with after an error in a step: a smaller batch, layers that run again, another precision."""

from __future__ import annotations

from dataclasses import replace

from recipes.contract import RecipeExit, RecipeFailure
from recipes.finetune.plan import Plan
from recipes.finetune.watching import NotFinite
from recipes.methods.contract import TuningMethod
from recipes.models.precision import is_out_of_memory, is_unsupported_precision


def fall_back(
    error: Exception, plan: Plan, step: int, method: TuningMethod, *, steps_in_backward: bool
) -> tuple[Plan, str] | None:
    """The plan to go on with after an error in the step behind `step`, and why; None: not one to go on from.

    Raises RecipeFailure: OUT_OF_MEMORY at one row a pass, DIVERGED on a loss that is not finite.
    """
    if is_out_of_memory(error):
        return _with_less_memory(error, plan, step, method, steps_in_backward=steps_in_backward)
    if plan.precision == "16-mixed" and isinstance(error, NotFinite):
        words = f"loss is not finite in 16-mixed at step {step + 1}: going on in 32"
    elif plan.precision not in ("32", "bf16-true") and is_unsupported_precision(error):
        words = f"{plan.precision} is not supported here ({str(error).splitlines()[0][:120]}): going on in 32"
    elif isinstance(error, NotFinite):
        raise RecipeFailure(
            RecipeExit.DIVERGED,
            f"diverged: the loss is {error} at step {step + 1}. Lower learning_rate, look for wrong transcripts, or "
            "train in precision 32.",
        ) from error
    else:
        return None
    return replace(plan.smaller() or plan, precision="32"), words


def _with_less_memory(
    error: Exception, plan: Plan, step: int, method: TuningMethod, *, steps_in_backward: bool
) -> tuple[Plan, str]:
    smaller = None if steps_in_backward else plan.smaller()
    if smaller is not None:
        words = f"batch size {plan.batch_size} → {smaller.batch_size}, accumulated {smaller.accumulate} times"
        return smaller, f"out of memory at step {step + 1}: {words}; {plan.rows_per_step} rows a step as before"
    if not plan.activation_checkpointing and method.encoder_backward != "none":
        words = f"out of memory at step {step + 1}: going on with activation checkpointing"
        return replace(plan, activation_checkpointing=True), words
    rows = "one row" if plan.batch_size == 1 else f"{plan.batch_size} rows"
    raise RecipeFailure(
        RecipeExit.OUT_OF_MEMORY,
        f"out of memory at step {step + 1} with {rows} a pass: lower max_duration_s or fused_batch_size, take method "
        "lora_decoder or frozen_encoder, a smaller base, or more memory",
    ) from error
