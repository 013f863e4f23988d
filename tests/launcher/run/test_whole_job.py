"""The main job on the local provider with real NeMo: from recordings to receipt, and through every kind of death."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from jobs import REPO, Ground, Launcher, run_quietly

from launcher.home import Home
from launcher.ledger import LeaseState, Ledger, RunState
from recipes.contract import EVENTS, read_events, sha256_of
from recipes.supervise import read_json
from tests.patience import until

pytestmark = pytest.mark.nemo
QUICK = ("--set", "learning_rate=0.002", "--set", "batch_size=8", "--set", "checkpoint_interval_steps=5",
         "--set", "validation_interval_steps=10", "--set", "early_stopping_patience=0")  # fmt: skip


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory, recipe_python: Path) -> Ground:
    """5 speakers saying 26 terms, everyday phrases, and a base that has heard the everyday phrases a little."""
    place = tmp_path_factory.mktemp("ground")
    corpus = REPO / "examples" / "clinical-terms" / "make_corpus.py"
    run_quietly(sys.executable, corpus, "--out", place, "--voices", 5)
    build = REPO / "examples" / "tiny_base" / "build.py"
    run_quietly(
        recipe_python, build, "--out", place / "base.nemo", "--corpus", place / "corpus.txt",
        "--train", place / "base" / "manifest.jsonl", "--steps", 120,
    )  # fmt: skip
    return Ground(place / "recordings", place / "general" / "manifest.jsonl", place / "base.nemo")


def tune(launcher: Launcher, ground: Ground, *more: object) -> tuple[int, dict[str, Any], str]:
    return launcher("tune", ground.recordings, "--general", ground.general, "--base", ground.base, *QUICK, *more)


@pytest.fixture(scope="module")
def finished(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[Launcher, dict[str, Any]]:
    """One job taken to its end by `launcher tune`."""
    launcher = Launcher(tmp_path_factory.mktemp("finished") / "home")
    code, outcome, err = tune(launcher, ground, "--set", "max_steps=30")
    assert code == 0, err
    return launcher, outcome


def test_a_folder_of_mixed_recordings_goes_to_a_receipt_with_no_file_written_by_hand(
    finished: tuple[Launcher, dict[str, Any]],
) -> None:
    _, outcome = finished
    assert outcome["state"] == "settled"
    assert outcome["released"] is True
    assert outcome["usd"]["charged"] == "0.00"
    assert outcome["choices"][0]["provider"] == "local"
    for when in ("before", "after"):
        for part in ("target", "general"):
            assert outcome["scores"][when][part]["micro"]["wer"]["total"] > 0
    assert outcome["decision"]["decision"] in ("keep", "expand", "grow", "no_change", "reject_forgets")
    assert json.loads(Path(outcome["receipt"]).read_text())["run"] == outcome["run"]
    assert Path(outcome["report"]).stat().st_size > 1000
    assert [Path(path).name for path in outcome["leaderboards"]] == ["leaderboard_cycle1.md", "leaderboard_cycle2.md"]
    (lease,) = outcome["leases"]
    assert len(lease["proof"]) == 2


def test_what_came_home_hashes_as_the_receipt_says_most_worth_first(
    finished: tuple[Launcher, dict[str, Any]],
) -> None:
    _, outcome = finished
    assert Path(outcome["artifacts"][0]["path"]).name == "adapted_model.nemo"
    for artifact in outcome["artifacts"]:
        assert sha256_of(Path(artifact["path"])) == artifact["sha256"]


def test_row_files_come_home_under_the_users_own_paths(finished: tuple[Launcher, dict[str, Any]]) -> None:
    launcher, outcome = finished
    run_dir = launcher.home / "runs" / outcome["run"]
    named = {json.loads(line)["audio_filepath"] for line in (run_dir / "offline_hyps.jsonl").read_text().splitlines()}
    held_out = {json.loads(line)["audio_filepath"]
                for line in Path(read_json(run_dir / "plan.json")["data"]["validation"]).read_text().splitlines()}  # type: ignore[index]  # fmt: skip
    assert named == held_out
    assert {
        row["audio_filepath"] for row in json.loads((run_dir / "after" / "per_sample.json").read_text())
    } == held_out


def test_no_artefact_names_this_machine(finished: tuple[Launcher, dict[str, Any]], ground: Ground) -> None:
    launcher, outcome = finished
    told = [str(launcher.home), str(ground.base.parent), os.uname().nodename]
    (model,) = (a["path"] for a in outcome["artifacts"] if a["path"].endswith(".nemo"))
    with tarfile.open(model) as archive:
        parts = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}  # type: ignore[union-attr]
        owners = {(member.uname, member.gname) for member in archive}
    assert owners <= {("", "")}
    for name, content in parts.items():
        for words in told:
            if len(words) < 6 and b"\0" in content:
                continue  # a host called `vm` is bound to turn up among a million random weights
            assert words.encode() not in content, f"{words} stands in {name}"


def test_the_general_set_is_scored_beside_and_nothing_is_left_on_the_local_machine(
    finished: tuple[Launcher, dict[str, Any]],
) -> None:
    launcher, outcome = finished
    assert outcome["scores"]["after"]["general"]["rows"] > 0
    assert not [box for box in (launcher.home / "boxes").iterdir() if not box.name.startswith(".")]


def test_the_same_job_again_takes_its_baseline_from_the_cache(
    finished: tuple[Launcher, dict[str, Any]], ground: Ground
) -> None:
    launcher, first = finished
    code, outcome, err = tune(launcher, ground, "--set", "max_steps=2")
    assert code == 0, err
    events = [event for _, event in read_events(launcher.home / "runs" / outcome["run"] / EVENTS)]
    assert any("cache" in str(event.get("message")) for event in events)
    assert outcome["scores"]["before"] == first["scores"]["before"]


def test_what_training_measured_is_kept_for_the_next_estimate(finished: tuple[Launcher, dict[str, Any]]) -> None:
    launcher, outcome = finished
    (measured,) = [row for row in Ledger.open(Home(launcher.home)).throughputs() if row.run == outcome["run"]]
    assert measured.audio_s_per_s > 0
    assert measured.precision == "32"
    assert measured.count == 0
    assert measured.method == "full"


def test_a_run_that_is_over_says_so_and_is_not_run_again(finished: tuple[Launcher, dict[str, Any]]) -> None:
    launcher, outcome = finished
    code, again, _ = launcher("resume", outcome["run"])
    assert (code, again["run"], again["state"]) == (0, outcome["run"], "settled")
    code, listed, _ = launcher("status")
    assert [run["state"] for run in listed["runs"] if run["run"] == outcome["run"]] == ["settled"]
    assert code == 0


def started(launcher: Launcher, ground: Ground, steps: int) -> str:
    """A run that has begun to train, with nobody watching."""
    code, _, err = tune(launcher, ground, "--set", "max_steps=1")
    assert code == 0, err
    corpora = launcher.home / "corpora"
    (job,) = corpora.glob("*/job.yaml")
    job.write_text(job.read_text().replace("max_steps: 1", f"max_steps: {steps}"))
    code, run, err = launcher("run", job, "--detach")
    assert code == 0, err
    return str(run["run"])


def training(launcher: Launcher, run: str, at_least: int) -> bool:
    events = read_events(launcher.home / "runs" / run / EVENTS)
    return any(e.get("step") == "finetune" and int(e.get("at_step") or 0) >= at_least for _, e in events)


def kill_everything(launcher: Launcher, run: str, *, recipe_too: bool) -> None:
    """What a power cut does: SIGKILL to the runner, and to what it started."""
    held = read_json(launcher.home / "runs" / run / "runner.json")
    if held:
        kill(int(held["pid"]))
    if recipe_too:
        for alive in (launcher.home / "boxes").glob("*/steps/*/alive.json"):
            facts = read_json(alive) or {}
            for name in ("pid", "child"):
                if name in facts:
                    kill(int(facts[name]))


def kill(pid: int) -> None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return
    if b"launcher" in command or b"recipes" in command or b"supervise" in command:  # never another's process
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_moments_and_resumed_it_does_the_same_steps_in_one_run(
    launcher: Launcher, ground: Ground, seed: int
) -> None:
    rng, steps = random.Random(seed), 40
    run = started(launcher, ground, steps)
    for _ in range(int(os.environ.get("LAUNCHER_TEST_KILLS", "4"))):
        time.sleep(rng.uniform(0.2, 6.0))  # the moment is what is random here
        kill_everything(launcher, run, recipe_too=rng.random() < 0.5)
        assert launcher("resume", run, "--detach")[0] == 0
    code, outcome, err = launcher("attach", run)
    assert code == 0, err
    assert outcome["training"]["steps"] == steps
    ledger = Ledger.open(Home(launcher.home))
    assert [r.run for r in ledger.runs() if r.state is RunState.SETTLED].count(run) == 1
    assert len(ledger.runs()) == 2  # the one that made the job file, and this one
    assert [lease.state for lease in ledger.leases(run)] == [LeaseState.RELEASED]


def test_a_second_launch_of_the_same_live_job_finds_the_first(launcher: Launcher, ground: Ground) -> None:
    run = started(launcher, ground, 2000)
    (job,) = (launcher.home / "corpora").glob("*/job.yaml")
    code, again, _ = launcher("run", job, "--detach")
    assert (code, again["run"]) == (0, run)
    until(lambda: training(launcher, run, 6), name="training")
    code, outcome, err = launcher("stop", run)
    assert code == 8, err
    assert outcome["state"] == "stopped"
    assert Path(outcome["artifacts"][0]["path"]).name == "adapted_model.nemo"
    assert outcome["released"] is True


def test_sigterm_without_a_terminal_releases_at_once(launcher: Launcher, ground: Ground) -> None:
    run = started(launcher, ground, 2000)
    watching = launcher.start("attach", run, "--json")
    until(lambda: training(launcher, run, 1), name="training")
    watching.send_signal(signal.SIGTERM)
    out, err = watching.communicate(timeout=120)
    assert watching.returncode == 130, err
    assert json.loads(out)["state"] == "cancelled"
    ledger = Ledger.open(Home(launcher.home))
    assert [lease.state for lease in ledger.leases(run)] == [LeaseState.RELEASED]
    assert not list((launcher.home / "boxes").glob("[!.]*"))


def test_a_wrong_job_is_one_clear_message_and_nothing_is_written(launcher: Launcher, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "text": "x", "duration": 1.0}\n')
    job.write_text("recipe: finetune\nspec:\n  max_step: 5\ndata:\n  manifest: m.jsonl\n")
    code, said, err = launcher("run", job)
    assert code == 2
    assert f"{job}:3  spec.max_step: no such setting. Did you mean max_steps (an integer" in said["error"]["message"]
    assert "Traceback" not in err
    assert not launcher.home.exists()
