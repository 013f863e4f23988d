"""The batch file: lists, matrices, overrides validated as if written in the job, and every fault with its line."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.batch.file import MOST_JOBS, Matrix, _combinations, load_batch
from launcher.configfile import ConfigFile
from launcher.errors import BadInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two jobs over one manifest."""
    (tmp_path / "base.nemo").write_text("{}")
    rows = [{"audio_filepath": f"{n}.wav", "duration": 1.0, "text": "hello"} for n in range(4)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, steps in (("a", 10), ("b", 20)):
        (tmp_path / f"{name}.yaml").write_text(
            f"recipe: finetune\nspec: {{base: ./base.nemo, max_steps: {steps}}}\ndata: {{manifest: m.jsonl}}\n"
        )
    return tmp_path


def batch(folder: Path, text: str) -> Any:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return load_batch(path)


def fault(folder: Path, text: str) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        batch(folder, text)
    return caught.value


def test_a_list_of_paths_and_of_jobs_written_over_becomes_checked_jobs(folder: Path) -> None:
    held = batch(folder, "jobs:\n  - a.yaml\n  - {job: b.yaml, name: longer, with: {spec.max_steps: 300}}\n")
    assert [(item.name, item.job.spec.max_steps) for item in held.items] == [("a", 10), ("longer", 300)]
    assert held.items[1].job.data.manifest == folder / "m.jsonl"


def test_a_matrix_makes_every_combination_and_names_it_by_what_differs(folder: Path) -> None:
    held = batch(
        folder,
        "matrix:\n  job: a.yaml\n  over: {spec.method: [full, frozen_encoder], spec.learning_rate: [1e-4, 3.0e-5]}\n",
    )
    assert [item.name for item in held.items] == [
        "a method=full learning_rate=1e-4", "a method=full learning_rate=3e-05",
        "a method=frozen_encoder learning_rate=1e-4", "a method=frozen_encoder learning_rate=3e-05",
    ]  # fmt: skip
    assert [item.job.spec.learning_rate for item in held.items] == [1e-4, 3e-5, 1e-4, 3e-5]


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(st.integers(), min_size=1, max_size=4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_matrix_is_the_product_of_its_values_and_nothing_else(over: dict[str, list[Any]]) -> None:
    combined = _combinations(Matrix(job="a.yaml", over=over), ConfigFile.__new__(ConfigFile))
    assert [tuple(each.values()) for each in combined] == list(product(*over.values()))
    assert all(tuple(each) == tuple(over) for each in combined)


def test_the_same_job_written_twice_is_one_run(folder: Path) -> None:
    held = batch(folder, "jobs:\n  - a.yaml\n  - {job: b.yaml, with: {spec.max_steps: 10}}\n  - b.yaml\n")
    assert [item.same_as for item in held.items] == [None, 0, None]


def test_the_key_is_the_same_for_the_same_jobs_and_another_for_another_amount_name_or_manifest(folder: Path) -> None:
    text = "total_usd: 10\njobs: [a.yaml, b.yaml]\n"
    key = batch(folder, text).key
    assert batch(folder, f"# a word\nconcurrency: 2\n{text}").key == key
    assert batch(folder, text.replace("10", "11")).key != key
    assert batch(folder, f"name: again\n{text}").key != key
    assert batch(folder, "total_usd: 10\njobs: [b.yaml, a.yaml]\n").key != key
    with (folder / "m.jsonl").open("a") as file:
        file.write('{"audio_filepath": "9.wav", "duration": 1.0, "text": "more"}\n')
    assert batch(folder, text).key != key


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("job: [a.yaml]\n", 1, "job", "Did you mean jobs"),
        ("recipe: finetune\n", None, "", "launcher run"),
        ("jobs: a.yaml\n", 1, "jobs", "must be a list: a line - a.yaml"),
        ("jobs: []\n", None, "", "names no job"),
        ("jobs:\n  - a.yaml\n  - c.yaml\n", 3, "jobs[1].job", "no such job file"),
        ("jobs:\n  - {job: a.yaml, nmae: x}\n", 2, "jobs[0].nmae", "Did you mean name"),
        ("jobs:\n  - job: a.yaml\n    with:\n      spec.max_step: 5\n", 4, "spec.max_step", "Did you mean max_steps"),
        ("jobs:\n  - job: a.yaml\n    with: {specs.max_steps: 5}\n", 3, "specs", "Did you mean spec"),
        ("jobs:\n  - job: a.yaml\n    with: {spec.max_steps: many}\n", 3, "spec.max_steps", "an integer"),
        ("jobs:\n  - job: a.yaml\n    with: {spec.max_steps.x: 1}\n", 3, "spec.max_steps.x", "no mapping"),
        ("jobs:\n  - job: a.yaml\n    with: {spec.: 1}\n", 3, "spec.", "with dots"),
        ("jobs:\n  - job: a.yaml\n    with: {budget: night}\n", 3, "budget", "beside jobs"),
        ("jobs:\n  - job: a.yaml\n    with: {data.manifest: n.jsonl}\n", 3, "data.manifest", "no such file"),
        ("jobs:\n  - job: a.yaml\n    with: {spec: 5}\n", 3, "spec", "a mapping"),
        ("jobs: [a.yaml]\ntotal_usd: -1\n", 2, "total_usd", "more than 0"),
        ("jobs: [a.yaml]\ntotal_usd: .nan\n", 2, "total_usd", "not an amount"),
        ("jobs: [a.yaml]\ntotal_usd: 5,00\n", 2, "total_usd", "not an amount"),
        ("jobs: [a.yaml]\nconcurrency: 0\n", 2, "concurrency", "at least 1"),
        ("jobs: [a.yaml]\nwait_hours: 2 days\n", 2, "wait_hours", "a number"),
        ("matrix:\n  job: a.yaml\n  over: {spec.max_steps: []}\n", 3, "matrix.over.spec.max_steps", "no values"),
        ("matrix:\n  job: a.yaml\n  over: {spec.max_steps: 5}\n", 3, "matrix.over.spec.max_steps", "list"),
        ("matrix:\n  job: a.yaml\n  over: {spec.method: [full, ful]}\n", 3, "spec.method", "full"),
    ],
)  # fmt: skip
def test_every_fault_names_its_line_key_and_fix(
    folder: Path, text: str, line: int | None, key: str, words: str
) -> None:
    error = fault(folder, text)
    assert (Path(error.file or "").name, error.line, error.key) == ("sweep.yaml", line, key), str(error)
    assert words in str(error)


def test_a_fault_that_stands_in_the_job_file_names_the_job_file(folder: Path) -> None:
    (folder / "a.yaml").write_text("recipe: finetune\nspec: {max_step: 5}\ndata: {manifest: m.jsonl}\n")
    error = fault(folder, "jobs:\n  - {job: a.yaml, with: {spec.seed: 1}}\n")
    assert (Path(error.file or "").name, error.line, error.key) == ("a.yaml", 2, "spec.max_step")


def test_more_combinations_than_a_batch_may_have_are_refused_with_the_sum(folder: Path) -> None:
    values = ", ".join(map(str, range(1, 30)))
    over = f"spec.max_steps: [{values}]\n    spec.seed: [{values}]"
    error = fault(folder, f"matrix:\n  job: a.yaml\n  over:\n    {over}\n")
    assert f"29 × 29 = 841 combinations are more than a batch may have ({MOST_JOBS})" in str(error)
    assert error.line == 3


@pytest.mark.parametrize("written", ["[slack://tokenA/tokenB]", "mailto://me:hunter2@example.org", "[a b, X]"])
def test_an_address_in_the_file_is_refused_and_never_repeated(folder: Path, written: str) -> None:
    error = fault(folder, f"jobs: [a.yaml]\nnotify: {written}\n")
    assert error.key == "notify"
    assert error.line == 2
    told = json.dumps(error.as_json())
    assert "export LAUNCHER_NOTIFY" in told
    assert "token" not in told
    assert "hunter2" not in told


def test_jobs_under_different_budgets_need_one_for_the_batch(folder: Path) -> None:
    with (folder / "b.yaml").open("a") as file:
        file.write("budget: night\n")
    assert "a.yaml names none, b.yaml names night" in str(fault(folder, "jobs: [a.yaml, b.yaml]\n"))
    assert batch(folder, "budget: night\njobs: [a.yaml, b.yaml]\n").file.budget == "night"
