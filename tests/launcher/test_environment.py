"""The environments: found, judged and built; nothing is downloaded here (a wheel made on the spot is enough)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from launcher import envbuild, environment
from launcher.environment import Environment
from launcher.errors import BadInputError


def make_wheel(folder: Path, name: str = "tinypkg", version: str = "1.0") -> Path:
    """A wheel that pip installs without an index: one module holding its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture
def tiny(tmp_path: Path) -> Environment:
    """An environment of one package, whose lock pins pip as it comes with this Python: no network."""
    bundled = subprocess.run(
        [sys.executable, "-c", "import ensurepip; print(ensurepip.version())"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    lock = tmp_path / "tiny.lock"
    lock.write_text(f"pip=={bundled}\ntinypkg==1.0\n")
    return Environment(
        "tiny", tmp_path / "env", "one", ("--no-index", str(make_wheel(tmp_path))), lock, 0.01, wipe_when_stale=True
    )


@pytest.fixture(autouse=True)
def plain_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pip inside a Python may be too old for the flags that the locked one has."""
    monkeypatch.setattr(envbuild, "FLAGS", ("--progress-bar", "off"))


def version_inside(env: Environment) -> str:
    code = "import tinypkg; print(tinypkg.version)"
    return subprocess.run([str(env.python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_build_stamps_last_and_a_second_one_does_nothing(tiny: Environment) -> None:
    said: list[str] = []
    assert tiny.state == "absent"
    assert envbuild.build([tiny], show=said.append) == [tiny]
    assert tiny.state == "ready"
    assert version_inside(tiny) == "1.0"
    assert said, "progress was shown"
    stamp = (tiny.root / environment.STAMP).stat().st_mtime_ns
    assert stamp >= (tiny.root / "lib").stat().st_mtime_ns
    assert envbuild.build([tiny]) == []
    assert (tiny.root / environment.STAMP).stat().st_mtime_ns == stamp


def test_a_changed_lock_rebuilds_and_what_was_there_is_gone(tiny: Environment, tmp_path: Path) -> None:
    envbuild.build([tiny])
    left = next(tiny.root.glob("lib/python3*/site-packages")) / "left_over.py"
    left.write_text("")
    tiny.lock.write_text(tiny.lock.read_text().replace("tinypkg==1.0", "tinypkg==2.0"))
    changed = Environment(
        "tiny", tiny.root, "two", ("--no-index", str(make_wheel(tmp_path, version="2.0"))), tiny.lock, 0.01, True
    )
    assert changed.state == "stale"
    assert envbuild.build([changed]) == [changed]
    assert version_inside(changed) == "2.0"
    assert not left.exists()


def test_a_package_torn_by_a_kill_is_installed_again(tiny: Environment) -> None:
    envbuild.build([tiny])
    site = next(tiny.root.glob("lib/python3*/site-packages"))
    (tiny.root / environment.STAMP).unlink()  # as a kill leaves it: METADATA there, INSTALLER not, a file cut short
    (site / "tinypkg-1.0.dist-info" / "INSTALLER").unlink()
    (site / "tinypkg.py").write_text("")
    (site / "~inypkg").mkdir()
    assert tiny.state == "unfinished"
    envbuild.build([tiny])
    assert version_inside(tiny) == "1.0"
    assert not (site / "~inypkg").exists()


def test_a_failed_install_leaves_no_stamp_and_says_what_pip_said(tiny: Environment, tmp_path: Path) -> None:
    broken = Environment("tiny", tiny.root, "x", ("--no-index", "nosuchpkg"), tiny.lock, 0.01, wipe_when_stale=True)
    with pytest.raises(envbuild.BuildFailedError, match="nosuchpkg") as caught:
        envbuild.build([broken])
    assert broken.state == "unfinished"
    assert "make env" in caught.value.fix
    assert "nosuchpkg" in Path(str(caught.value.file)).read_text()


def test_a_folder_that_is_no_virtual_environment_is_never_touched(tiny: Environment) -> None:
    tiny.root.mkdir()
    (tiny.root / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInputError, match="in the way"):
        envbuild.build([tiny])
    assert (tiny.root / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_said_before_anything_is_downloaded(tiny: Environment) -> None:
    huge = Environment("tiny", tiny.root, "x", tiny.requirements, tiny.lock, 1e9, wipe_when_stale=True)
    with pytest.raises(BadInputError, match="GB are free"):
        envbuild.build([huge])
    assert huge.state == "absent"


def test_a_python_without_venv_is_told_which_package_to_install(tiny: Environment, tmp_path: Path) -> None:
    stripped = tmp_path / "python3"  # Debian's python3 without python3-venv: ensurepip cannot be imported
    stripped.write_text('#!/bin/sh\necho "No module named ensurepip" >&2\nexit 1\n')
    stripped.chmod(0o755)
    with pytest.raises(BadInputError) as caught:
        envbuild.build([tiny], base_python=str(stripped))
    assert "apt-get install python3-venv" in str(caught.value)


def test_the_recipe_python_given_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.OVERRIDE, sys.executable)
    assert environment.recipe_python() == Path(sys.executable)


def test_a_recipe_python_that_is_not_there_is_refused_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.OVERRIDE, "/nowhere/python")
    with pytest.raises(BadInputError, match=environment.OVERRIDE):
        environment.recipe_python()


@pytest.mark.parametrize(
    ("stamp", "said"),
    [(None, "not built to its end"), ({"fingerprint": "old"}, "another lock"), ("torn", "not built to its end")],
)
def test_an_unfinished_or_stale_recipe_environment_is_refused_with_its_fix(
    stamp: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(environment.OVERRIDE, raising=False)
    monkeypatch.setattr(environment, "checkout", lambda: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(BadInputError, match="is not there") as caught:
        environment.recipe_python()
    assert "launcher doctor --fix" in caught.value.fix
    env = environment.recipe_environment()
    assert env.root == tmp_path / "parakeet-launcher" / "envs" / env.fingerprint
    env.python.parent.mkdir(parents=True)
    env.python.symlink_to(sys.executable)
    if stamp is not None:
        (env.root / environment.STAMP).write_text("{" if stamp == "torn" else json.dumps(stamp))
    with pytest.raises(BadInputError, match=said):
        environment.recipe_python()
    (env.root / environment.STAMP).write_text(json.dumps({"fingerprint": env.fingerprint}))
    assert environment.recipe_python() == env.python


def test_every_recipe_requirement_is_locked_and_torch_has_no_local_version(repo: Path) -> None:
    def names(path: str) -> dict[str, str]:
        lines = (line.split("#")[0].strip() for line in (repo / path).read_text().splitlines())
        return {re.split(r"[\[=<>!~]", line)[0].lower().replace("_", "-"): line for line in lines if line}

    lock, asked = names("recipes/requirements.lock"), names("recipes/requirements.in")
    assert asked.keys() <= lock.keys()
    assert lock["torch"] == "torch==2.13.0"
    assert lock["nemo-toolkit"].endswith("==3.0.0")
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lock.values()), "each line pins one version"
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    assert sorted(project["optional-dependencies"]["train"]) == sorted(asked.values())


def test_make_and_pip_agree_on_what_is_locked_for_the_launcher(repo: Path) -> None:
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cloud"], *extras["demo"], *extras["dev"]]
    lock = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (repo / "launcher/requirements.lock").read_text().splitlines()
    }
    missing = [name for name in asked if re.split(r"[\[=<>!~ ]", name)[0].lower().replace("_", "-") not in lock]
    assert missing == []
    assert not lock & {"torch", "nemo-toolkit", "transformers"}, "torch stays out of the launcher's environment"


def test_the_builder_runs_on_a_bare_python(repo: Path, tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import launcher.envbuild; print('fine')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(repo)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_two_builds_of_one_environment_do_not_meet(tiny: Environment) -> None:
    """The second waits, then finds it ready: pip runs once."""
    twice = envbuild.build([tiny, tiny])
    assert tiny.state == "ready"
    assert twice == [tiny, tiny]
    log = (tiny.root / envbuild.LOG).read_text()
    assert log.count("Successfully installed tinypkg") == 1
