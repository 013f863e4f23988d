"""`launcher doctor`: what it finds is so, and every failure comes with its fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher import doctor, environment
from launcher.home import Home

SECRET = "sk-this-must-never-be-shown"


def run(repo: Path, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(repo), "HOME": str(home), "COLUMNS": "80"} | more
    command = [sys.executable, "-m", "launcher", "doctor", "--home", str(home / "state"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=home, check=False)


def test_json_is_one_object_and_ok_says_whether_a_local_run_works(
    repo: Path, recipe_python: Path, tmp_path: Path
) -> None:
    done = run(repo, tmp_path, "--json", LAUNCHER_RECIPE_PYTHON=str(recipe_python))
    told = json.loads(done.stdout)
    assert told["ok"] is True, done.stdout
    assert done.returncode == 0
    by_name = {check["name"]: check for check in told["checks"]}
    assert {"python", "recipe env", "gpu", "disk", "home", "clock", "audio", "skypilot", "vast key"} <= by_name.keys()
    assert "NeMo 3.0.0" in by_name["recipe env"]["detail"]
    assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in told["checks"])
    assert not (tmp_path / "state").exists(), "looking creates nothing"


def test_without_a_recipe_environment_it_is_not_ok_and_says_how_to_build_one(repo: Path, tmp_path: Path) -> None:
    done = run(repo, tmp_path, "--json", LAUNCHER_RECIPE_PYTHON=str(tmp_path / "nowhere"))
    told = json.loads(done.stdout)
    assert (told["ok"], done.returncode) == (False, 2)
    (failed,) = [check for check in told["checks"] if check["needed"] and not check["ok"]]
    assert failed["name"] == "recipe env"
    assert "LAUNCHER_RECIPE_PYTHON" in failed["fix"]


def test_quiet_still_says_what_fails_and_its_fix(repo: Path, tmp_path: Path) -> None:
    done = run(repo, tmp_path, "-q", LAUNCHER_RECIPE_PYTHON=str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("warning: recipe env: ")
    assert "LAUNCHER_RECIPE_PYTHON" in done.stderr


def test_a_python_without_nemo_is_not_taken_for_a_recipe_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setenv(environment.OVERRIDE, str(tmp_path / "bare" / "bin" / "python"))
    check, torch_version = doctor.check_recipe_environment(deep=False)
    assert not check.ok
    assert "torch" in check.detail
    assert "nemo_toolkit" in check.detail
    assert check.fix
    assert torch_version is None


@pytest.mark.nemo
def test_deep_loads_torch_and_nemo_for_real(recipe_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.OVERRIDE, str(recipe_python))
    check, torch_version = doctor.check_recipe_environment(deep=True)
    assert check.ok, check.detail
    assert "both load" in check.detail
    assert torch_version is not None
    assert torch_version.startswith("2.13")


def test_every_failure_has_a_fix_and_lines_fit_80_columns(repo: Path, tmp_path: Path) -> None:
    done = run(repo, tmp_path, PATH="/nonexistent", LAUNCHER_RECIPE_PYTHON=str(tmp_path / "nowhere"))
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "Not ready" in done.stdout
    as_json = json.loads(run(repo, tmp_path, "--json", PATH="/nonexistent").stdout)
    assert all(check["fix"] for check in as_json["checks"] if not check["ok"])
    assert all(not check["fix"] for check in as_json["checks"] if check["ok"])


def test_keys_are_found_by_presence_and_never_shown(repo: Path, tmp_path: Path) -> None:
    kept = tmp_path / ".config" / "vastai" / "vast_api_key"
    kept.parent.mkdir(parents=True)
    kept.write_text(SECRET)
    kept.chmod(0o600)
    done = run(repo, tmp_path, "--json", RUNPOD_API_KEY=SECRET)
    assert SECRET not in done.stdout + done.stderr
    by_name = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert by_name["vast key"]["ok"]
    assert by_name["runpod key"] == {**by_name["runpod key"], "ok": True, "detail": "in $RUNPOD_API_KEY"}
    kept.chmod(0o644)
    loose = {c["name"]: c for c in json.loads(run(repo, tmp_path, "--json").stdout)["checks"]}["vast key"]
    assert not loose["ok"]
    assert loose["fix"] == f"chmod 600 {kept}"


def test_a_home_open_to_others_is_named_with_its_chmod(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    check = doctor.check_home(Home(root))
    assert (check.ok, check.fix) == (False, f"chmod 700 {root}")
    root.chmod(0o700)
    assert doctor.check_home(Home(root)).ok


def test_a_wrong_clock_is_caught_by_the_machines_own_evidence() -> None:
    assert doctor.check_clock().ok
    assert not doctor.check_clock(lambda: time.time() + 3600).ok
    assert not doctor.check_clock(lambda: 86400.0 * 365).ok


@pytest.mark.parametrize(
    ("cards", "cuda", "torch_version", "ok", "says"),
    [
        ([], 0, "2.13.0+cpu", True, "CPU only"),
        (["NVIDIA L40S 45 GiB"], 13000, "2.13.0", True, "L40S"),
        (["NVIDIA L40S 45 GiB"], 13000, "2.13.0+cpu", False, "CPU build"),
        (["NVIDIA L40S 45 GiB"], 12040, "2.13.0", False, "too old"),
        (["NVIDIA L40S 45 GiB"], 12040, None, True, "L40S"),
    ],
)
def test_a_gpu_that_the_installed_torch_cannot_use_is_said(
    cards: list[str], cuda: int, torch_version: str | None, ok: bool, says: str
) -> None:
    check = doctor.judge_gpu(cards, "560.35", cuda, torch_version)
    assert check.ok is ok
    assert says in check.detail
    assert bool(check.fix) is not ok


def test_an_empty_folder_called_sky_is_not_taken_for_skypilot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sky").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr(doctor, "_version", asked.append)
    skypilot = doctor.check_engines()[0]
    assert "skypilot" in asked
    assert not skypilot.ok
