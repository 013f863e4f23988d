"""Two processes train as one (gloo): the same weights, every row once an epoch, and a death of one is not the end."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import pytest
from finetune_harness import Recipe, events, steps_done, wait_for

from recipes.contract import RecipeExit, damaged, read_complete

pytestmark = pytest.mark.nemo
WHOLE = pytest.mark.slow("LAUNCHER_TEST_TOGETHER")  # make test-together
ROWS, BATCH = 24, 4  # of the tone corpus, a step

#: Each process writes down its id, the rows of each of its passes, and at the end a hash of its weights.
TOLD = """
import hashlib, json, os, sys
from pathlib import Path
from recipes.finetune.__main__ import main
if "RANK" in os.environ:
    from recipes.finetune import stream, training
    out, rank = Path(sys.argv[2]), os.environ["RANK"]
    out.mkdir(exist_ok=True)
    (out / f"pid.{rank}").write_text(str(os.getpid()))
    (out / f"rows.{rank}").unlink(missing_ok=True)
    batches, run = stream.StreamBatches.__iter__, training.Training.run
    def told(self):
        for rows in batches(self):
            with open(out / f"rows.{rank}", "a") as file:
                print(json.dumps(rows), file=file)
            yield rows
    def ran(self):
        reason = run(self)
        held = b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())
        (out / f"weights.{rank}").write_text(hashlib.sha256(held).hexdigest())
        return reason
    stream.StreamBatches.__iter__, training.Training.run = told, ran
sys.exit(main(sys.argv[1:]))
"""


def taken(out: Path) -> list[list[int]]:
    """The rows of each step, of both processes together."""
    both = [[json.loads(line) for line in (out / f"rows.{rank}").read_text().splitlines()] for rank in (0, 1)]
    assert {len(rows) for rows in itertools.chain(*both)} == {BATCH // 2}
    return [one + two for one, two in zip(*both, strict=True)]


def test_two_learn_as_one_and_go_on_from_a_checkpoint_after_one_of_them_was_killed(
    recipe: Recipe, tmp_path: Path
) -> None:
    steps, saved = 36, 12
    settings = {"max_steps": steps, "batch_size": BATCH, "validation_interval_steps": 18}
    spec = recipe.spec(tmp_path, devices=2, checkpoint_interval_steps=saved, **settings)
    out = tmp_path / "out"
    process = recipe.start(spec, out, script=TOLD)
    wait_for(process, lambda: steps_done(out) > saved)
    os.kill(int((out / "pid.1").read_text()), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGKILL, errors
    assert "process 1 of the 2 that train together was killed by SIGKILL" in errors
    assert not any(Path(f"/proc/{(out / f'pid.{rank}').read_text()}").exists() for rank in (0, 1))
    assert [event["code"] for event in events(out, "failure")] == [137]
    assert read_complete(out) is None
    aside = out / ".processes" / "1"  # it alone decodes nothing and keeps nothing
    assert {event["name"] for event in events(aside, "phase")} == {"loading", "training"}
    assert not list(aside.glob("checkpoints/*-*"))
    steps_before = steps_done(out)

    code, errors = recipe.run(spec, out, script=TOLD)
    assert code == RecipeExit.DONE, errors
    (resumed,) = [e["message"] for e in events(out, "note") if "resumed" in e["message"]]
    start = int(resumed.split()[-1])
    assert start % saved == 0 and saved <= start <= steps_before
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed) and listed[0].path == "adapted_model.nemo"
    assert len({(out / f"weights.{rank}").read_text() for rank in (0, 1)}) == 1
    an_epoch = ROWS // BATCH
    passes = taken(out)
    assert len(passes) == steps - start
    for first in range(0, len(passes), an_epoch):
        assert sorted(itertools.chain(*passes[first : first + an_epoch])) == list(range(ROWS))
    said = [event["loss"] for event in events(out, "progress") if event["seconds_per_step"]]
    assert said[-1] < said[0] / 2
    info = json.loads((out / "training_run_info.json").read_text())
    numbers = info["hyper_parameters"]
    assert (numbers["devices"], numbers["batch_size"], numbers["accumulate"]) == (2, BATCH // 2, 1)
    assert [v["step"] for v in info["validations"]] == [0, 18, 36]
    assert "devices: 2\n" in (out / "finetune.yaml").read_text()
    assert not (out / ".processes").exists() and not (out / ".work").exists()


@WHOLE
@pytest.mark.parametrize("base", ["tdt", "rnnt", "hybrid"])
def test_every_kind_of_base_learns_in_two_processes(recipe: Recipe, tmp_path: Path, base: str) -> None:
    method = {"rnnt": "frozen_encoder", "hybrid": "lora_decoder"}.get(base, "full")
    file = str((recipe.bases or recipe.data) / f"{base}.nemo")
    spec = recipe.spec(tmp_path, base=file, devices=2, method=method, max_steps=12, accumulate_grad_batches=2)
    code, errors = recipe.run(spec, tmp_path / "out", script=TOLD)
    assert code == RecipeExit.DONE, errors
    assert len({(tmp_path / "out" / f"weights.{rank}").read_text() for rank in (0, 1)}) == 1


@WHOLE
def test_a_signal_and_a_trim_end_all_with_a_model_and_another_number_of_devices_goes_on(
    recipe: Recipe, tmp_path: Path
) -> None:
    settings = {"max_steps": 400, "validation_interval_steps": 200, "checkpoint_interval_steps": 200}
    out = tmp_path / "out"
    process = recipe.start(recipe.spec(tmp_path / "two", devices=2, **settings), out)
    wait_for(process, lambda: steps_done(out) >= 3)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == RecipeExit.STOPPED_AT_LIMIT, errors
    stopped = json.loads((out / "result.json").read_text())["metrics"]
    assert stopped["reason"] == "stopped by SIGTERM" and read_complete(out)

    (out / "TRIM.json").write_text(json.dumps({"max_steps": stopped["steps"] + 4}))
    code, errors = recipe.run(recipe.spec(tmp_path / "one", devices=1, **settings), out)
    assert code == RecipeExit.STOPPED_AT_LIMIT, errors
    assert json.loads((out / "result.json").read_text())["metrics"]["steps"] == stopped["steps"] + 4

    (out / "TRIM.json").unlink()
    other = tmp_path / "other"
    process = recipe.start(recipe.spec(tmp_path / "two", devices=2, **settings), other)
    wait_for(process, lambda: steps_done(other) >= 3)
    (other / "TRIM.json").write_text('{"max_steps": 1}')
    _, errors = process.communicate(timeout=120)
    assert process.returncode == RecipeExit.STOPPED_AT_LIMIT, errors


@WHOLE
def test_a_loss_that_is_not_finite_ends_both_as_diverged(recipe: Recipe, tmp_path: Path) -> None:
    spec = recipe.spec(tmp_path, devices=2, learning_rate=1e30, warmup_steps=0, gradient_clip_val=0)
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == RecipeExit.DIVERGED, errors
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "diverged"


@WHOLE
def test_rows_that_devices_cannot_share_are_refused_with_a_way_out(recipe: Recipe, tmp_path: Path) -> None:
    code, errors = recipe.run(recipe.spec(tmp_path, devices=3), tmp_path / "out")
    assert code == RecipeExit.BAD_INPUT and "3 devices cannot share the 4 rows of a step" in errors


@WHOLE
def test_two_machines_train_as_one_and_only_the_first_writes(recipe: Recipe, tmp_path: Path) -> None:
    from recipes.finetune.places import free_port

    spec = recipe.spec(tmp_path, max_steps=12)
    told = {"SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.2", "SKYPILOT_NUM_NODES": "2", "GLOO_SOCKET_IFNAME": "lo",
            "SKYPILOT_NUM_GPUS_PER_NODE": "0", "MASTER_PORT": str(free_port())}  # fmt: skip
    outs = [tmp_path / f"machine-{node}" for node in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        started = []
        for node, out in enumerate(outs):
            patch.setenv("SKYPILOT_NODE_RANK", str(node))
            started.append(recipe.start(spec, out, script=TOLD))
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == RecipeExit.DONE, errors
    assert read_complete(outs[0]) and "num_nodes: 2\n" in (outs[0] / "finetune.yaml").read_text()
    assert sorted(path.name for path in outs[1].iterdir()) == [".processes", "pid.1", "rows.1", "weights.1"]
    assert (outs[0] / "weights.0").read_text() == (outs[1] / "weights.1").read_text()
