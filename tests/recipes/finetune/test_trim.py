"""A schedule shortened while it runs: the rate goes to its end without a jump, a kill does not lengthen it again."""

from __future__ import annotations

import itertools
import json
import math
import signal
from pathlib import Path

import pytest
from finetune_harness import Recipe, events, steps_done, wait_for
from test_interruptions import SAME

from recipes.contract import MEAN_OF_STEPS, RecipeExit, damaged, read_complete

pytestmark = pytest.mark.nemo

RATE, WARMUP, PLANNED, SHORT, AT = 3e-3, 4, 60, 20, 8

#: Puts TRIM.json in place when the given step is done, notes every rate, and dies by SIGKILL after another step.
TOLD = """
import os, pathlib, signal, sys
from recipes.finetune import training
from recipes.finetune.__main__ import main
spec, out, at, steps, dies = sys.argv[1:]
done = training.Training.step_done
def told(self, watch, *rest):
    with open(pathlib.Path(out, "rates.txt"), "a") as file:
        print(watch.step, repr(watch.learning_rate()), file=file)
    if watch.step == int(at):
        pathlib.Path(out, "TRIM.json").write_text('{"max_steps": %s}' % steps)
    ends = done(self, watch, *rest)
    if watch.step == int(dies):
        os.kill(os.getpid(), signal.SIGKILL)
    return ends
training.Training.step_done = told
sys.exit(main([spec, out]))
"""


def planned_rate(place: float) -> float:
    """NeMo's CosineAnnealing as the recipe sets it: linear warm-up, then a cosine to a twentieth."""
    if place <= WARMUP:
        return RATE * (place + 1) / (WARMUP + 1)
    turn = math.cos(math.pi * (place - WARMUP) / (PLANNED - WARMUP))
    return RATE / 20 + (RATE - RATE / 20) * 0.5 * (1 + turn)


def test_a_trimmed_run_anneals_to_its_end_and_a_kill_right_after_changes_nothing(
    recipe: Recipe, tmp_path: Path
) -> None:
    settings = {"max_steps": PLANNED, "warmup_steps": WARMUP, "learning_rate": RATE, "checkpoint_interval_steps": 5}
    spec, whole, broken = recipe.spec(tmp_path, **settings), tmp_path / "whole", tmp_path / "broken"
    code, errors = recipe.run(spec, whole, AT, SHORT, 0, script=TOLD)
    assert code == RecipeExit.STOPPED_AT_LIMIT, errors

    listed = read_complete(whole)
    assert listed is not None and not damaged(whole, listed) and listed[0].path == "adapted_model.nemo"
    result = json.loads((whole / "result.json").read_text())
    assert result["status"] == "stopped" and result["metrics"]["steps"] == SHORT
    assert result["metrics"]["reason"] == f"stopped by TRIM.json: {PLANNED} steps shortened to {SHORT}"
    (event,) = events(whole, "trim")
    assert (event["step"], event["total"], event["total_before"]) == (AT, SHORT, PLANNED)
    said = [event for event in events(whole, "progress") if event["seconds_per_step"]]
    assert said[-1]["total"] == SHORT
    assert all(event["averaged_steps"] == min(MEAN_OF_STEPS, event["step"]) for event in said)
    info = json.loads((whole / "training_run_info.json").read_text())
    assert [v["step"] for v in info["validations"]] == [0, 10, 20]
    assert info["hyper_parameters"]["total_steps"] == SHORT
    assert f"max_steps: {SHORT}\n" in (whole / "finetune.yaml").read_text()

    # The rate of the step after each: as planned to where it was trimmed, then the rest of the plan, faster.
    rates = {int(step): float(rate) for step, rate in map(str.split, (whole / "rates.txt").read_text().splitlines())}
    assert list(rates) == list(range(1, SHORT + 1))
    for step, rate in rates.items():
        place = step if step <= AT else AT + (step - AT) * (PLANNED - AT) / (SHORT - AT)
        assert rate == pytest.approx(planned_rate(place), rel=1e-9), step
    assert rates[SHORT] == pytest.approx(RATE / 20)
    falls = [before - after for before, after in itertools.pairwise(list(rates.values())[AT - 1 :])]
    assert all(0 <= fall < RATE / 5 for fall in falls)

    # Killed after it was told, before the next checkpoint; the file is gone, and a longer one there instead.
    code, _ = recipe.run(spec, broken, AT, SHORT, AT + 1, script=TOLD)
    assert code == -signal.SIGKILL
    (broken / "TRIM.json").write_text('{"max_steps": 500}')
    code, errors = recipe.run(spec, broken)
    assert code == RecipeExit.STOPPED_AT_LIMIT, errors
    assert any("step 5" in e["message"] for e in events(broken, "note"))
    last = Path("checkpoints") / f"step-{SHORT:08d}" / "state.pt"
    process = recipe.start(whole / last, broken / last, script=SAME)
    differing, errors = process.communicate()
    assert differing.strip() == "[]", errors  # weights and optimizer, bit by bit


def test_a_trim_below_the_steps_done_ends_the_run_now_with_a_usable_model(recipe: Recipe, tmp_path: Path) -> None:
    spec, out = recipe.spec(tmp_path, max_steps=100_000, validation_interval_steps=50_000), tmp_path / "out"
    process = recipe.start(spec, out)
    wait_for(process, lambda: steps_done(out) >= 3)
    (out / "TRIM.json").write_text('{"max_steps": 1}')
    _, errors = process.communicate(timeout=120)
    assert process.returncode == RecipeExit.STOPPED_AT_LIMIT, errors
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed) and listed[0].path == "adapted_model.nemo"
    result = json.loads((out / "result.json").read_text())["metrics"]
    (event,) = events(out, "trim")
    assert "ends now" in event["message"] and event["step"] == event["total"] == result["steps"] >= 3
    assert result["final_step_of_model"] == result["steps"]  # the last step was validated, whatever the interval
