"""`launcher init`: two files that the launcher itself reads back, never over somebody's own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launcher import starter
from launcher.budgets import BUILT_IN, load_budgets
from launcher.job import load_job
from launcher.money import Usd


def run(repo: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "init", *arguments]
    environ = os.environ | {"PYTHONPATH": str(repo)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environ, cwd=where, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "my words: heard.jsonl"  # a name that is no plain YAML scalar
    path.write_text('{"audio_filepath": "a.wav", "duration": 1.0, "text": "hello"}\n')
    return path


def test_what_init_writes_the_launcher_reads_with_the_recommended_defaults(
    repo: Path, tmp_path: Path, manifest: Path
) -> None:
    done = run(repo, tmp_path, "project", "--manifest", manifest.name, "--general", manifest.name, "--json")
    assert done.returncode == 0, done.stderr
    files = [Path(name) for name in json.loads(done.stdout)["files"]]
    assert files == [tmp_path / "project" / "job.yaml", tmp_path / "project" / "budgets.yaml"]
    job = load_job(files[0])
    assert job.data.manifest == manifest
    assert job.data.general == manifest
    pending = {"train_manifest": "pending", "validation_manifest": "pending"}
    assert job.spec == type(job.spec)(**pending), "written out or commented out, the settings are the defaults"
    assert load_budgets(files[1]) == BUILT_IN


def test_every_setting_of_the_recipe_and_of_a_budget_stands_in_the_files() -> None:
    from launcher.budgets import Budget
    from recipes.finetune.spec import DATA_FIELDS, FinetuneSpec

    job, budgets = starter.job_yaml("m.jsonl"), starter.budgets_yaml()
    assert [
        name
        for name in FinetuneSpec.model_fields
        if name not in DATA_FIELDS and not re.search(rf"^  #?{name}: ", job, re.M)
    ] == []
    assert [name for name in Budget.model_fields if f"{name}:" not in budgets] == []
    assert max(map(len, (job + budgets).splitlines())) <= starter.WIDTH


def test_the_commented_settings_are_valid_when_uncommented(tmp_path: Path, manifest: Path) -> None:
    path = tmp_path / "job.yaml"
    names = [setting.name for setting in starter.recipe("finetune").settings]
    lines = starter.job_yaml(manifest.name).splitlines()
    live = [
        line.replace("  #", "  ", 1) if any(line.startswith(f"  #{name}: ") for name in names) else line
        for line in lines
    ]
    assert live != lines
    path.write_text("\n".join(live) + "\n")
    load_job(path)


def test_budgets_yaml_of_this_repository_is_what_init_writes(repo: Path) -> None:
    assert (repo / "budgets.yaml").read_text() == starter.budgets_yaml()


def test_a_file_that_is_there_is_never_overwritten_without_force(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "budgets.yaml").write_text("mine\n")
    done = run(repo, tmp_path)
    assert done.returncode == 2
    assert "budgets.yaml" in done.stderr
    assert "--force" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["budgets.yaml"]
    assert (tmp_path / "budgets.yaml").read_text() == "mine\n"
    assert run(repo, tmp_path, "--force").returncode == 0
    assert load_budgets(tmp_path / "budgets.yaml") == BUILT_IN


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--manifest", "nowhere.jsonl"), "--manifest"),
        (("--general", "nowhere.jsonl"), "--general"),
        (("--base", "nowhere.nemo"), "--base"),
        (("--base", "nvidia/nemotron-speech-streaming-en-0.6b"), "--base"),
        (("--per-run", "lots"), "--per-run"),
        (("--per-run", "-1"), "--per-run"),
    ],
)
def test_a_wrong_value_is_named_and_nothing_is_written(
    repo: Path, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    done = run(repo, tmp_path, *arguments)
    assert done.returncode == 2, done.stdout
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_per_run_cap_above_the_usual_day_raises_day_and_month(tmp_path: Path) -> None:
    (tmp_path / "budgets.yaml").write_text(starter.budgets_yaml(Usd("120.5")))
    budget = load_budgets(tmp_path / "budgets.yaml").budgets[BUILT_IN.default]
    assert budget.per_run_usd == budget.per_day_usd == budget.per_month_usd == Usd("120.5")


@pytest.mark.parametrize("text", ["a.nemo", "true", "1e3", "null", "it's", "a: b", "ü/é.jsonl", "# x", "~", "-"])
def test_any_path_survives_yaml(text: str) -> None:
    assert yaml.safe_load(f"key: {starter.scalar(text)}") == {"key": text}


def test_without_a_terminal_nothing_is_asked(repo: Path, tmp_path: Path) -> None:
    done = run(repo, tmp_path)
    assert done.returncode == 0
    assert "?" not in done.stdout
    assert (tmp_path / "job.yaml").exists()


def test_at_a_terminal_it_asks_and_ctrl_c_writes_nothing(repo: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    environ = os.environ | {"PYTHONPATH": str(repo), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "init"], stdin=slave, stdout=slave, stderr=slave, env=environ,
        cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    said = b""
    until = time.monotonic() + 60
    while b"manifest" not in said and time.monotonic() < until:
        said += os.read(master, 4096)
    os.write(master, b"\x03")
    try:
        while os.read(master, 4096):  # drain, so that it can end
            pass
    except OSError:  # Linux's way of saying that the other end has closed
        pass
    assert process.wait(60) == 130, said
    os.close(master)
    assert list(tmp_path.iterdir()) == []
