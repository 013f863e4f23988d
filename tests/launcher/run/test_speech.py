"""What the verbs print: one object in JSON mode, nothing in quiet, no colours in a pipe; odd names and full disks."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from fast import FastGround, make_ground, over_and_clean
from jobs import REPO, Launcher

from launcher.home import Home
from launcher.ledger import Ledger


def test_every_verb_answers_with_one_object_whether_it_goes_well_or_not(fast: FastGround, launcher: Launcher) -> None:
    code, outcome, err = launcher("run", fast.job())
    assert code == 0, err
    base = fast.folder / "job.yaml.nemo"
    for verb in ("status", "logs", "attach", "report", "stop", "resume"):
        assert launcher(verb, outcome["run"])[0] == 0, verb
        assert launcher(verb, "zzz")[0] == 2, verb
    out = fast.folder / "evaluated"
    for arguments in (("evaluate", base, fast.folder / "m.jsonl", "--out", out), ("plan", fast.folder / "job.yaml")):
        assert launcher(*arguments)[0] == 0
    for arguments in (
        ("evaluate", "gone.nemo", fast.folder / "m.jsonl"), ("transcribe", "gone.nemo", fast.folder / "0.wav"),
        ("plan", "gone.yaml"), ("run", "gone.yaml"), ("tune", "gone"), ("resume",), ("run", "--nonsense"),
    ):  # fmt: skip
        code, said, err = launcher(*arguments)
        assert code == 2, arguments
        assert said["exit"] == 2
        assert "Traceback" not in err
        assert "\x1b" not in err


def test_quiet_says_nothing_and_a_pipe_gets_no_colours(fast: FastGround, launcher: Launcher) -> None:
    loud = launcher.start("run", fast.job())
    out, err = loud.communicate(timeout=60)
    assert loud.returncode == 0, err
    assert "\x1b" not in out + err
    assert "released" in out
    (run,) = Ledger.open(Home(launcher.home)).runs()
    for verb in ("status", "logs", "attach", "report"):
        quiet = launcher.start(verb, *(() if verb == "status" else (run.run,)), "-q")
        assert quiet.communicate(timeout=60) == ("", "")
        assert quiet.returncode == 0


@pytest.mark.parametrize(
    "name", ["a home", "höme ☂", "-home", "what? 100% #1", "$(touch x) 'and' \"so\"", "two\nlines"]
)
def test_any_name_will_do_for_the_home_the_job_and_the_recordings(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = make_ground(tmp_path / f"ground {name}")
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", str(ground.python))
    rows = [json.loads(line) for line in (ground.folder / "m.jsonl").read_text().splitlines()]
    for row in rows:
        (ground.folder / row["audio_filepath"]).rename(ground.folder / f"{name} {row['audio_filepath']}")
        row["audio_filepath"] = f"{name} {row['audio_filepath']}"
    (ground.folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = ground.job(3)
    job = job.rename(ground.folder / f"{name}.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "--home", name, "run", str(job), "--json"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    over_and_clean(Launcher(tmp_path / name), outcome["run"])
    heard = (tmp_path / name / "runs" / outcome["run"] / "offline_hyps.jsonl").read_text().splitlines()
    named = {Path(json.loads(line)["audio_filepath"]) for line in heard}
    assert named < {ground.folder / row["audio_filepath"] for row in rows}
    assert not list(tmp_path.rglob("x"))


def test_a_disk_that_is_full_is_one_line(fast: FastGround, launcher: Launcher) -> None:
    job = fast.job()
    for limit in (0, 40_000):
        done = subprocess.run(
            [sys.executable, "-m", "launcher", "--home", str(launcher.home), "run", str(job), "--json"],
            env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
            text=True, check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert len(done.stdout.splitlines()) == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")
    code, outcome, err = launcher("run", job)
    assert code == 0, err
    over_and_clean(launcher, outcome["run"])


def test_a_recipe_environment_that_is_gone_is_said_before_there_is_a_run(
    fast: FastGround, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_RECIPE_PYTHON", "/nowhere/python")
    code, said, _ = launcher("run", fast.job())
    assert (code, said["error"]["key"]) == (2, "LAUNCHER_RECIPE_PYTHON")
    assert Ledger.open(Home(launcher.home)).runs() == []
