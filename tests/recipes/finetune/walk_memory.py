"""Runs in the recipe environment, NeMo imported once: trains a tiny base in each way that saves memory.

python walk_memory.py WORK SPEC.json [SEEDS]  ->  one JSON object of what was found
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from walk_methods import Killed, held, train

from recipes.contract import read_events, write_json
from recipes.finetune.training import Training
from recipes.models import activation_checkpointing

WORK = Path(sys.argv[1])
WAYS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw_8bit": {"optimizer": "adamw_8bit"},
    "adamw_8bit of bf16": {"optimizer": "adamw_8bit", "precision": "bf16-true"},
    "adamw_8bit_in_backward": {"optimizer": "adamw_8bit_in_backward"},
}


def losses(out: Path) -> dict[int, float]:
    found = [event for _, event in read_events(out / "events.jsonl")]
    return {e["step"]: e["loss"] for e in found if e["kind"] == "progress" and e.get("loss") is not None}


def differing(one: Path, other: Path) -> list[str]:
    a, b = held(one / "adapted_model.nemo"), held(other / "adapted_model.nemo")
    assert a.keys() == b.keys()
    return [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]


def run_again(given: dict[str, Any]) -> dict[str, Any]:
    """With and without activation checkpointing: what differs, and how often a layer was run."""
    found = {}
    for method in ("full", "lora"):
        runs: list[int] = []
        plain = activation_checkpointing._run_again

        def counted(module: Any, *args: Any, **kwargs: Any) -> Any:
            runs.append(1)  # noqa: B023
            return plain(module, *args, **kwargs)  # noqa: B023

        settings = given | {"method": method, "max_steps": 8, "validation_interval_steps": 4}
        every_step = patch("recipes.finetune.watching.PROGRESS_STEPS", 1)  # else a slow machine tells of other steps
        with every_step:
            without = train(f"{method}-without", settings, activation_checkpointing=False)
        with every_step, patch.object(activation_checkpointing, "_run_again", counted):
            again = train(f"{method}-again", settings, activation_checkpointing=True)
        found[method] = {
            "differing": differing(without, again),
            "losses": losses(without) == losses(again),
            "runs": len(runs),
        }
    return found


def resumed(name: str, given: dict[str, Any], **way: Any) -> dict[str, Any]:
    """Killed after a checkpoint and gone on: what differs from a run that never stopped, and what its model is."""
    settings = given | way | {"max_steps": 12, "validation_interval_steps": 6, "checkpoint_interval_steps": 6}
    whole = train(f"{name}-whole", settings)
    save = Training.save

    def save_and_die(self: Training, state: dict[str, Any]) -> None:
        save(self, state)
        raise Killed

    with patch.object(Training, "save", save_and_die), contextlib.suppress(Killed):
        train(f"{name}-broken", settings)
    broken = train(f"{name}-broken", settings)
    base, model = held(Path(given["base"])), held(whole / "adapted_model.nemo")
    forms = [{name: (tensor.shape, tensor.dtype) for name, tensor in each.items()} for each in (base, model)]
    notes = [e["message"] for _, e in read_events(broken / "events.jsonl") if e["kind"] == "note"]
    return {
        "differing": differing(whole, broken),
        "resumed": any("resumed from the checkpoint of step 6" in note for note in notes),
        "as_the_base": forms[0] == forms[1],
        "moved": sum(not torch.equal(model[k], base[k]) for k in base),
    }  # fmt: skip


def curves(given: dict[str, Any], seeds: int) -> dict[str, list[float]]:
    """The mean loss of each way's last steps, by seed."""
    settings = given | {"max_steps": 60, "validation_interval_steps": 60, "gradient_clip_val": 0}
    found: dict[str, list[float]] = {}
    for name, way in WAYS.items():
        for seed in range(seeds):
            with patch("recipes.finetune.watching.PROGRESS_STEPS", 1):
                out = train(f"{name}-{seed}".replace(" ", "-"), settings, seed=seed, **way)
            last = [loss for step, loss in losses(out).items() if step > 48]
            found.setdefault(name, []).append(sum(last) / len(last))
    return found


def main() -> None:
    given = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if seeds:
        found: dict[str, Any] = {"curves": curves(given, seeds)}
    else:
        found = {"again": run_again(given)}
        found["resumed"] = {name: resumed(name.replace(" ", "-"), given, **way) for name, way in WAYS.items()}
    write_json(WORK / "found.json", found)


if __name__ == "__main__":
    main()
