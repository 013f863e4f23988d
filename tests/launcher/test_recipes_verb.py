"""`launcher recipes`: every recipe is listed, each setting with its unit, default and description."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
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


@pytest.mark.parametrize("name", recipe_names())
def test_every_setting_says_when_to_change_it_and_where_it_comes_from(repo: Path, name: str) -> None:
    settings = {setting.name: setting for setting in recipe(name).settings}
    assert [key for key, each in settings.items() if not (each.change and each.source)] == []
    written = tomllib.loads((repo / "recipes" / name / "settings.toml").read_text(encoding="utf-8"))
    assert [key for key in written if key not in settings] == []
    assert [key for key, told in written.items() if set(told) - {"change", "source", "unit"}] == []


def test_a_unit_is_told_where_the_name_does_not_say_it() -> None:
    units = {setting.name: setting.unit for setting in recipe("finetune").settings}
    assert units["measure_batch_size"] == "" and units["num_workers"] == "processes"
    labelling = {setting.name: setting for setting in recipe("pseudo_label").settings}
    assert labelling["max_characters_per_s"].unit == "characters a second"
    assert "Whisper" in labelling["model"].source, "its own word, not evaluate's"


def test_show_reads_as_documentation_at_80_columns(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(repo, "show", "finetune").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    at = next(number for number, line in enumerate(lines) if line.startswith("warmup_steps"))
    said = " ".join(line.strip() for line in lines[at : at + 9])
    told = ('default "auto" (steps)', "linear warm-up", "When to change it: More when", "Source: NVIDIA's guide")
    assert all(words in said for words in told), said


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
