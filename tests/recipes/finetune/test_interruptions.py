"""Killed, stopped, out of memory or diverging: a run goes on where it was, or says why not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from finetune_harness import Recipe, ended, events, steps_done, wait_for, whole_checkpoints

from recipes.contract import RecipeExit, damaged, read_complete

pytestmark = pytest.mark.nemo

#: Dies by SIGKILL half way through writing the checkpoint of step 15.
KILLED_IN_SAVE = """
import os, signal, sys, torch
from recipes.finetune.__main__ import main
whole = torch.save
def half(state, path):
    whole(state, path)
    if "part-step-00000015" in str(path):
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
sys.exit(main(sys.argv[1:]))
"""

#: Dies by SIGKILL after step 17, between two checkpoints.
KILLED_BETWEEN = """
import os, signal, sys
from recipes.finetune.__main__ import main
from recipes.finetune.training import Training
done = Training.step_done
def dies(self, watch, *more):
    ends = done(self, watch, *more)
    if watch.step == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return ends
Training.step_done = dies
sys.exit(main(sys.argv[1:]))
"""

#: Prints the names of the tensors in which two checkpoints differ.
SAME = """
import sys, torch
one, two = (torch.load(path, weights_only=True) for path in sys.argv[1:])
def flat(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}/{key}")
    elif isinstance(value, torch.Tensor):
        yield name, value
a, b = (dict(flat({key: state[key] for key in ("model", "optimizer")})) for state in (one, two))
assert a.keys() == b.keys() and len(a) > 50
print([name for name in a if not torch.equal(a[name], b[name])])
"""

#: Gives the process so much memory more than it has when training begins; a large allocation then really fails.
LIMITED = """
import resource, sys
from recipes.finetune import training
from recipes.finetune.__main__ import main
fit = training.Training._segment
def limited(self):
    pages = int(open("/proc/self/statm").read().split()[5])  # data: what RLIMIT_DATA counts
    limit = pages * resource.getpagesize() + int(float(sys.argv[3]) * 2**20)
    if not getattr(limited, "done", False):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        limited.done = True
    return fit(self)
training.Training._segment = limited
sys.exit(main(sys.argv[1:3]))
"""


def test_a_run_killed_in_a_save_and_between_ends_as_an_unbroken_one(recipe: Recipe, tmp_path: Path) -> None:
    settings = {"max_steps": 30, "validation_interval_steps": 10, "checkpoint_interval_steps": 5}
    spec, whole, broken = recipe.spec(tmp_path, **settings), tmp_path / "whole", tmp_path / "broken"
    assert recipe.run(spec, whole)[0] == 0

    code, _ = recipe.run(spec, broken, script=KILLED_IN_SAVE)
    assert code == -signal.SIGKILL
    assert (broken / "checkpoints" / ".part-step-00000015").exists()
    assert not (broken / "COMPLETE.json").exists()

    code, errors = recipe.run(spec, broken, script=KILLED_BETWEEN)
    assert code == -signal.SIGKILL, errors

    code, errors = recipe.run(spec, broken)
    assert code == 0, errors
    resumed = [e["message"] for e in events(broken, "note")]
    assert resumed[0] == "resumed from the checkpoint of step 10"
    assert resumed[1] == "resumed from the checkpoint of step 15"  # at most one interval is lost
    listed = read_complete(broken)
    assert listed is not None and not damaged(broken, listed)
    for out in (whole, broken):
        info = json.loads((out / "training_run_info.json").read_text())
        assert info["result"]["steps"] == 30
    last = Path("checkpoints") / "step-00000030" / "state.pt"
    process = recipe.start(whole / last, broken / last, script=SAME)
    differing, errors = process.communicate()
    assert differing.strip() == "[]", errors  # weights and optimizer, bit by bit

    before = (broken / "adapted_model.nemo").stat().st_mtime_ns
    code, errors = recipe.run(spec, broken)
    assert code == 0 and "finished before" in errors
    assert (broken / "adapted_model.nemo").stat().st_mtime_ns == before
    code, errors = recipe.run(recipe.spec(tmp_path / "other", **(settings | {"seed": 1})), broken)
    assert code == RecipeExit.BAD_INPUT and "other settings" in errors


def test_sigterm_and_the_stop_file_end_with_a_usable_model_and_a_resume_goes_on(
    recipe: Recipe, tmp_path: Path
) -> None:
    spec, out = recipe.spec(tmp_path, max_steps=100_000, validation_interval_steps=50_000), tmp_path / "out"
    process = recipe.start(spec, out)
    wait_for(process, lambda: steps_done(out) >= 3)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == RecipeExit.STOPPED_AT_LIMIT, errors
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed) and listed[0].path == "adapted_model.nemo"
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "stopped" and result["metrics"]["reason"] == "stopped by SIGTERM"
    steps = result["metrics"]["steps"]
    assert steps >= 3

    (out / "STOP").touch()
    code, errors = recipe.run(spec, out)
    assert code == RecipeExit.STOPPED_AT_LIMIT, errors
    result = json.loads((out / "result.json").read_text())
    assert result["metrics"]["reason"] == "stopped by the file STOP"
    assert result["metrics"]["steps"] == steps + 1

    newest = sorted((out / "checkpoints").glob("step-*"))[-1]
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-100] + bytes(100))
    code, errors = recipe.run(spec, out)
    assert code == RecipeExit.STOPPED_AT_LIMIT, errors
    assert any(f"{newest.name} is not whole" in e["message"] for e in events(out, "warning"))
    assert json.loads((out / "result.json").read_text())["metrics"]["steps"] == steps + 1


def test_a_loss_that_is_not_finite_ends_as_diverged_without_a_model(recipe: Recipe, tmp_path: Path) -> None:
    spec = recipe.spec(tmp_path, learning_rate=1e30, warmup_steps=0, gradient_clip_val=0)
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == RecipeExit.DIVERGED, errors
    assert errors.strip().splitlines()[-1].startswith("finetune: diverged: the loss is")
    assert not (tmp_path / "out" / "COMPLETE.json").exists()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "diverged"
    shutil.rmtree(tmp_path / "out")


#: The loss of step argv[3] is not a number.
NAN_AT = """
import sys
from nemo.collections.asr.models import EncDecCTCModelBPE
from recipes.finetune.__main__ import main
step = EncDecCTCModelBPE.training_step
def training_step(self, batch, number):
    loss = step(self, batch, number)
    if self.trainer.global_step == int(sys.argv[3]) - 1:
        loss["loss"] = loss["loss"] * float("nan")
    return loss
EncDecCTCModelBPE.training_step = training_step
sys.exit(main(sys.argv[1:3]))
"""

#: Before the checkpoint of step argv[3] is written, another program fills the disk to all but so many bytes.
FILLS = """
import errno, os, sys, torch
from recipes.finetune.__main__ import main
whole, filler = torch.save, os.environ["FILLER"]
def save(state, path):
    if f"part-step-{int(sys.argv[3]):08d}" in str(path):
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
        os.truncate(filler, max(0, os.path.getsize(filler) - int(sys.argv[4])))
    whole(state, path)
torch.save = save
sys.exit(main(sys.argv[1:3]))
"""


def test_a_loss_that_is_nan_at_some_step_keeps_the_checkpoint_before_it_and_goes_on_from_there(
    recipe: Recipe, tmp_path: Path
) -> None:
    spec, out = recipe.spec(tmp_path, checkpoint_interval_steps=5), tmp_path / "out"
    code, errors = recipe.run(spec, out, 13, script=NAN_AT)
    assert code == RecipeExit.DIVERGED, errors
    status, reason = ended(out)
    assert status == "diverged" and "the loss is nan at step 13" in reason
    assert [name for name in whole_checkpoints(out) if name.startswith("step")] == ["step-00000005", "step-00000010"]
    code, errors = recipe.run(spec, out)
    assert code == RecipeExit.DONE, errors
    assert [e["message"] for e in events(out, "note")][-1] == "resumed from the checkpoint of step 10"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small disk")
@pytest.mark.parametrize("left", [300_000, 0])
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before_it_and_goes_on_where_there_is_room(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        monkeypatch.setenv("FILLER", str(disk / "filler"))
        spec, out = recipe.spec(tmp_path, checkpoint_interval_steps=5), disk / "out"
        code, errors = recipe.run(spec, out, 15, left, script=FILLS)
        assert code == RecipeExit.DISK_FULL, errors
        assert len(errors.strip().splitlines()) == 1 and "no room left to write: 0.0" in errors, errors
        status, reason = ended(out)
        assert status == "disk_full" and "of 0.1 GB are free" in reason and "make room and start it again" in reason
        kept = [name for name in whole_checkpoints(out) if name.startswith("step")]
        assert kept == ["step-00000005", "step-00000010"]
        assert [event["code"] for event in events(out, "failure")] == [RecipeExit.DISK_FULL]
        (disk / "filler").unlink()
        code, errors = recipe.run(spec, out)
        assert code == RecipeExit.DONE, errors
        assert [e["message"] for e in events(out, "note")][-1] == "resumed from the checkpoint of step 10"
        listed = read_complete(out)
        assert listed is not None and not damaged(out, listed)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_out_of_memory_halves_the_batch_until_it_fits_and_keeps_the_rows_a_step(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a failed attempt frees goes back at once; glibc's heap would keep it, and RLIMIT_DATA counts that
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    settings = {"max_steps": 4, "batch_size": 512, "validation_interval_steps": 4}
    out = tmp_path / "out"
    code, errors = recipe.run(recipe.spec(tmp_path, **settings), out, 400, script=LIMITED)
    assert code == 0, errors[-2000:]
    warnings = [e["message"] for e in events(out, "warning") if "out of memory" in e["message"]]
    assert "batch size 512 → 256, accumulated 2 times; 512 rows a step as before" in warnings[0]
    numbers = json.loads((out / "training_run_info.json").read_text())["hyper_parameters"]
    assert numbers["batch_size"] * numbers["accumulate"] == 512 and numbers["batch_size"] < 512
    assert json.loads((out / "result.json").read_text())["metrics"]["steps"] == 4

    tight = tmp_path / "tight"
    code, errors = recipe.run(recipe.spec(tmp_path, **(settings | {"batch_size": 2})), tight, 2, script=LIMITED)
    assert code == RecipeExit.OUT_OF_MEMORY, errors[-2000:]
    assert "one row a pass" in errors and not (tight / "COMPLETE.json").exists()
