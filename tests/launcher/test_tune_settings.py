"""What `tune` is asked is checked before minutes go into importing."""

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.errors import BadInputError
from launcher.tune import parse_settings


def test_settings_have_yaml_values_and_exponents_are_numbers() -> None:
    assert parse_settings(("max_steps=20", "learning_rate=1e-3", "method=full", "max_epochs = 3")) == {
        "max_steps": 20, "learning_rate": 0.001, "method": "full", "max_epochs": 3,
    }  # fmt: skip


@pytest.mark.parametrize("wrong", ["max_steps", "=3", "a=[1"])
def test_a_setting_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(BadInputError, match="--set"):
        parse_settings((wrong,))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "max_step=3"), "--set max_step: no such setting. Did you mean max_steps"),
        (("--set", "max_steps=-3"), "--set max_steps: -3 will not do. It must be an integer"),
        (("--base", "nowhere.nemo"), "no such .nemo file"),
        (("--general", "nowhere"), "--general: no such file or folder"),
    ],
)
def test_a_wrong_wish_is_one_line_and_nothing_is_written(
    tmp_path: Path, repo: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "recordings").mkdir()
    home = tmp_path / "home"
    command = [sys.executable, "-m", "launcher", "--home", home, "tune", tmp_path / "recordings", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repo, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not home.exists()
