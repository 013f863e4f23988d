"""`launcher recipes`: every recipe is listed, each setting with its unit, default and description."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.catalog import recipe, recipe_names


def run(repo: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "recipes", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=repo, check=False)


def test_no_recipe_is_forgotten(repo: Path) -> None:
    runnable = {main.parent.name for main in (repo / "recipes").glob("*/__main__.py")}
    assert runnable <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_setting_is_described_and_defaults_are_valid(name: str) -> None:
    shown = recipe(name)
    assert shown.summary
    assert shown.settings
    undescribed = [setting.name for setting in shown.settings if not setting.description]
    assert undescribed == []
    json.dumps(shown.as_json(), allow_nan=False)


def test_list_and_show_give_one_object_with_recipes(repo: Path) -> None:
    listed = json.loads(run(repo, "--json").stdout)["recipes"]
    assert [each["name"] for each in listed] == recipe_names()
    (shown,) = json.loads(run(repo, "show", "evaluate", "--json").stdout)["recipes"]
    by_name = {setting["name"]: setting for setting in shown["settings"]}
    assert by_name["max_duration_s"]["unit"] == "seconds"
    assert by_name["manifest"]["from_data"]
    assert by_name["bootstrap"]["default"] == 1000


def test_a_misspelt_recipe_names_the_nearest_and_exits_2(repo: Path) -> None:
    done = run(repo, "show", "evalute")
    assert done.returncode == 2
    assert "Did you mean evaluate?" in done.stderr
    assert done.stdout == ""
