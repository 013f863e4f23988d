"""Runs in the recipe environment, NeMo imported once: measures batches on a tiny base, by meters that we set.

python walk_measuring.py WORK SPEC.json  ->  WORK/found.json
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from walk_memory import differing
from walk_methods import Killed, train

from recipes.contract import read_events, write_json
from recipes.finetune import measuring, run
from recipes.finetune.training import Training

WORK = Path(sys.argv[1])
CAPACITY_GB = 10.0
SAVE = Training.save


class Rows:
    """A meter on which a row takes so many GB, whatever the machine."""

    capacity_gb = CAPACITY_GB

    def __init__(self, gb_a_row: float) -> None:
        self.gb_a_row, self.rows = gb_a_row, 0

    def begin(self) -> None:
        self.rows = 0

    def peak_gb(self) -> float:
        return self.gb_a_row * self.rows


def measured(name: str, given: dict[str, Any], gb_a_row: float, most_rows: int = 99, **more: Any) -> dict[str, Any]:
    """A run whose batch was measured so; memory runs out above `most_rows`."""
    by, tried = Rows(gb_a_row), list[int]()
    as_it_is, before = measuring.rehearse, {}

    def rehearse(training: Training, places: list[int]) -> None:
        if not before:
            before.update({key: value.clone() for key, value in training.model.state_dict().items()})
        tried.append(len(places))
        if len(places) > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory: as a GPU says it")
        as_it_is(training, places)
        by.rows = len(places)
        after = training.model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), "a tried step left something"

    with patch.object(measuring, "rehearse", rehearse), patch.object(run, "meter", lambda: by):
        out = train(name, given, **more)
    numbers = json.loads((out / "training_run_info.json").read_text(encoding="utf-8"))["hyper_parameters"]
    notes = [event["message"] for _, event in read_events(out / "events.jsonl") if event["kind"] == "note"]
    return {
        "batch": [numbers["batch_size"], numbers["accumulate"]],
        "tried": tried,
        "said": [note for note in notes if "tried on this GPU" in note],
    }


def save_and_die(self: Training, state: dict[str, Any]) -> None:
    """As a kill right behind the first checkpoint."""
    SAVE(self, state)
    raise Killed


def resumed(name: str, given: dict[str, Any], gb_a_row: float) -> dict[str, Any]:
    """A run whose rows take 2 GB, killed, and gone on where they take `gb_a_row`."""
    with patch.object(Training, "save", save_and_die), contextlib.suppress(Killed):
        measured(name, given, 2.0)
    tempfile.tempdir = None
    return measured(name, given, gb_a_row)


def main() -> None:
    given = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    asked = given | {"method": "full", "max_steps": 4, "validation_interval_steps": 2, "checkpoint_interval_steps": 2}
    guessed = asked | {"batch_size": 2, "accumulate_grad_batches": 4, "measure_batch_size": True}
    found: dict[str, Any] = {
        "more": measured("more", guessed, 2.0),
        "out of memory": measured("out", guessed, 0.1, most_rows=1),
        "auto": measured("auto", asked | {"batch_size": "auto", "accumulate_grad_batches": 1}, 0.1),
        "asked for": measured("asked", asked | {"batch_size": 4, "accumulate_grad_batches": 2}, 0.1),
        "more memory": resumed("roomy", guessed, 0.1),
        "less memory": resumed("narrow", guessed, 8.0),
    }
    found["differing"] = {name: differing(WORK / "asked", WORK / name) for name in ("more", "roomy")}
    write_json(WORK / "found.json", found)


if __name__ == "__main__":
    main()
