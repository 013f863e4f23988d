"""What runs on a rented machine, run here: its own bash, real virtual environments, real pip, the real SkyPilot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from launcher.errors import BadInputError
from launcher.job import RECIPES_OF_A_JOB
from launcher.remote import PREPARE, env_of, image_of, recipes_with_a_task, run_of, setup_of, task_file

MODULES = ["nemo", "torch", "lightning", "omegaconf", "transformers", "peft", "tensorboard", "jiwer", "rapidfuzz",
           "kaldialign", "pydantic", "soundfile", "soxr"]  # fmt: skip


def bash(text: str, home: Path, *, path: str = "/usr/bin:/bin", **env: str) -> subprocess.CompletedProcess[str]:
    """As a machine would run it: in its own home, with no more of this environment than pip's settings."""
    held = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "http", "no_proxy"))
    }
    home.mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "-c", text], env=held | {"HOME": str(home), "PATH": path} | env, capture_output=True, text=True,
        check=False, timeout=300, cwd="/",
    )  # fmt: skip


def looks_through(python: Path) -> list[str]:
    """Which of the modules an environment has."""
    text = f"import importlib.util as u; print([m for m in {MODULES} if u.find_spec(m)])"
    said = subprocess.run([python, "-I", "-c", text], capture_output=True, text=True, check=True)
    return list(json.loads(said.stdout.replace("'", '"')))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of tiny packages under the real names, and a code folder whose lock asks for them."""
    wheels, recipes = tmp_path / "wheels", tmp_path / "code" / "recipes"
    wheels.mkdir()
    recipes.mkdir(parents=True)
    for name in MODULES:
        for version in ("1.0", "2.0"):
            info = f"{name}-{version}.dist-info"
            with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as file:
                file.writestr(f"{name}/__init__.py", f"version = '{version}'\n")
                file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
                file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                file.writestr(f"{info}/RECORD", "")
    (recipes / "requirements.in").write_text("\n".join(MODULES))
    (recipes / "requirements.lock").write_text("".join(f"{name}==1.0\n" for name in MODULES))
    return tmp_path


def offline(shelf: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf / "wheels"), "CODE": str(shelf / "code")}


def version(python: Path, module: str) -> str:
    text = f"import {module}; print({module}.version)"
    return subprocess.run([python, "-I", "-c", text], capture_output=True, text=True, check=True).stdout.strip()


def image(place: Path, shelf: Path, *wanted: str) -> str:
    """An image's Python of its own, with some packages; the PATH that finds it first."""
    venv.create(place, with_pip=True, symlinks=True)
    if wanted:
        subprocess.run([place / "bin" / "pip", "install", "-q", *wanted], check=True, env=os.environ | offline(shelf))
    return f"{place / 'bin'}:/usr/bin:/bin"


def test_every_recipe_that_a_job_can_name_has_its_task_and_all_share_one_text() -> None:
    assert set(recipes_with_a_task()) == set(RECIPES_OF_A_JOB)
    shared = [{**task_file(name), "name": None, "envs": None} for name in RECIPES_OF_A_JOB]
    assert all(one == shared[0] for one in shared)
    for name in RECIPES_OF_A_JOB:
        assert (task_file(name)["name"], task_file(name)["envs"]["RECIPE"]) == (f"parakeet-{name}", name)
        assert set(env_of(name, "/c", "/s", "/o")) >= set(task_file(name)["envs"])
    assert image_of("finetune").startswith("pytorch/pytorch:")
    with pytest.raises(BadInputError, match="There is one for: evaluate, extend_vocabulary, finetune"):
        setup_of("../finetune")


def test_skypilot_itself_reads_every_task(repo: Path, tmp_path: Path) -> None:
    text = """
import sky, sys, json
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    (wants,) = task.resources
    stop = wants.autostop_config
    print(json.dumps([task.name, wants.accelerators, stop.down, stop.wait_for.value, wants.disk_size,
                      wants.extract_docker_image(), sorted(task.envs)]))
"""
    files = [str(repo / "sky" / f"{name}.yaml") for name in recipes_with_a_task()]
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    said = subprocess.run([sys.executable, "-c", text, *files], env=env, cwd=repo, capture_output=True, text=True,
                          check=False, timeout=120)  # fmt: skip
    assert said.returncode == 0, said.stderr
    for line, name in zip(said.stdout.splitlines(), recipes_with_a_task(), strict=True):
        assert json.loads(line) == [f"parakeet-{name}", {"L40S": 1}, True, "none", 100, image_of(name),
                                    ["CODE", "OUT", "RECIPE", "SPEC"]]  # fmt: skip


def test_an_image_that_has_everything_is_linked_to_and_found_again_at_once(
    recipe_python: Path, tmp_path: Path
) -> None:
    home, place = tmp_path / "it's a home", recipe_python.parent.parent
    done = bash(setup_of("finetune"), home, path=f"{place / 'bin'}:/usr/bin:/bin", CODE="/nowhere")
    assert done.returncode == 0, done.stderr
    assert (home / "parakeet-env").resolve() == place.resolve()
    again = bash(setup_of("finetune"), home, CODE="/nowhere")
    assert (again.returncode, again.stdout) == (0, "the environment is there\n")


def test_an_image_with_nothing_gets_all_of_the_lock_and_a_broken_setup_is_mended(shelf: Path) -> None:
    home, path = shelf / "home", image(shelf / "image", shelf)
    done = bash(setup_of("finetune"), home, path=path, **offline(shelf))
    python = home / "parakeet-env" / "bin" / "python"
    assert done.returncode == 0, done.stderr
    assert looks_through(python) == MODULES
    assert version(python, "torch") == "1.0", "the lock's, not the newest"
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "soxr"], check=True)  # as if it had been cut short
    again = bash(setup_of("finetune"), home, path=path, **offline(shelf))
    assert (again.returncode, looks_through(python)) == (0, MODULES)


def test_an_images_torch_is_kept_where_it_is_the_locks(shelf: Path) -> None:
    path = image(shelf / "image", shelf, "torch==1.0", "pydantic==2.0")
    done = bash(setup_of("finetune"), shelf / "home", path=path, **offline(shelf))
    python = shelf / "home" / "parakeet-env" / "bin" / "python"
    assert done.returncode == 0, done.stderr
    assert looks_through(python) == MODULES
    assert not (next((shelf / "home/parakeet-env/lib").glob("python*")) / "site-packages" / "torch").exists()
    assert version(python, "pydantic") == "1.0"
    assert version(shelf / "image/bin/python", "pydantic") == "2.0", "the image itself is left as it is"


def test_what_a_nemo_container_lacks_is_added_and_what_it_has_is_left(shelf: Path) -> None:
    has = [f"{name}==2.0" for name in MODULES if name not in ("kaldialign", "soxr")]
    path = image(shelf / "image", shelf, *has)
    done = bash(setup_of("finetune"), shelf / "home", path=path, **offline(shelf))
    python = shelf / "home" / "parakeet-env" / "bin" / "python"
    assert done.returncode == 0, done.stderr
    assert [version(python, name) for name in ("nemo", "torch", "kaldialign", "soxr")] == ["2.0", "2.0", "1.0", "1.0"]
    assert "soxr" not in looks_through(shelf / "image/bin/python")


def test_a_lock_that_cannot_be_had_fails_in_words(shelf: Path) -> None:
    (shelf / "code/recipes/requirements.lock").write_text("torch==3.0\n")
    done = bash(setup_of("finetune"), shelf / "home", path=image(shelf / "image", shelf), **offline(shelf))
    assert done.returncode != 0
    assert "torch" in done.stderr


def test_run_becomes_the_recipe_so_that_signals_reach_it(tmp_path: Path) -> None:
    home, code = tmp_path / "a home", tmp_path / "the code"
    (code / "recipes" / "finetune").mkdir(parents=True)
    (code / "recipes" / "__init__.py").touch()
    (code / "recipes" / "finetune" / "__main__.py").write_text(
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(13))\n"
        "print(os.getpid(), *sys.argv[1:], sep='|', flush=True)\ntime.sleep(60)\n"
    )
    venv.create(home / "parakeet-env")
    env = env_of("finetune", str(code), "a spec; touch x.json", "out $(touch y)")
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", **env}
    running = subprocess.Popen(
        ["bash", "-c", run_of("finetune")], env=env, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert running.stdout
    assert running.stdout.readline() == f"{running.pid}|a spec; touch x.json|out $(touch y)\n"
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 13
    assert {p.name for p in tmp_path.iterdir()} == {"a home", "the code"}


def test_run_of_the_real_recipe_ends_with_its_own_code(recipe_python: Path, repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "parakeet-env").symlink_to(recipe_python.parent.parent)
    done = bash(run_of("evaluate"), home, RECIPE="evaluate", CODE=str(repo))
    assert done.returncode == 10, done.stderr
    assert str(home / "parakeet/job/spec.json") in done.stderr, "where sky/evaluate.yaml puts it"


def test_a_machine_is_prepared_for_its_data_or_says_that_it_cannot_be(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("id",):
        (tools / name).symlink_to(shutil.which(name) or name)
    sh = shutil.which("sh") or "/bin/sh"
    bare = subprocess.run([sh, "-c", PREPARE], env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert (bare.returncode, "no rsync" in bare.stderr) == (1, True)
    (tools / "rsync").symlink_to(shutil.which("rsync") or "rsync")
    ready = subprocess.run([sh, "-c", PREPARE], env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert (ready.returncode, ready.stdout, ready.stderr) == (0, "", "")


def test_an_installed_launcher_has_the_tasks_too(repo: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("launcher", "recipes", "sky"):
        shutil.copytree(repo / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "wheel", source]
    subprocess.run([str(part) for part in build], check=True, timeout=300)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "installed")
    text = "import launcher.remote as r; print(r.__file__, hash(r.run_of('finetune') + r.setup_of('evaluate')) != 0)"
    env = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": os.environ["PATH"]}
    said = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(tmp_path / "installed" / "launcher" / "remote.py"), "True"]
    for name in recipes_with_a_task():
        inside = (tmp_path / "installed" / "launcher" / "tasks" / f"{name}.yaml").read_text()
        assert yaml.safe_load(inside) == task_file(name)
