"""Wrong values in job.yaml and budgets.yaml: one line with file, key, value and fix, exit 2, nothing written."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fast import FastGround
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.cli import main

FRESH = itertools.count()
CAPS = "per_run_usd: 1, per_day_usd: 1, per_month_usd: 1, max_usd_per_hour: 1"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(fast: FastGround, job: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `launcher plan` says of a job it must refuse."""
    home = fast.folder.parent / "home"
    code = main(["--home", str(home), "plan", str(job), "--json"])
    out, err = capsys.readouterr()
    assert code == 2, (out, err)
    (line,) = out.splitlines()
    assert json.loads(line)["exit"] == 2
    (said,) = err.splitlines()
    assert len(said) < 1500
    assert not home.exists()
    return said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "data: is missing"),
        ("- a\n- b\n", "must be a mapping"),
        ("\t- a", ":1"),
        ("data: {manifest: m.jsonl}\nspec: {max_steps: !!bool perhaps}", "not valid YAML"),
        ("data: {manifest: m.jsonl}\nspec: {max_steps: !!int ''}", "not valid YAML"),
        ("data: {manifest: m.jsonl}\nspec: {max_steps: !!timestamp x}", "not valid YAML"),
        ("data: {manifest: m.jsonl}\n? [a, b]\n: c", "a key must be plain text"),
        (BOMB, "too large for settings"),
        ("data: &d {manifest: m.jsonl, general: *d}", "nested too deeply"),
        ("spec: " + "[" * 900 + "]" * 900, "nested too deeply"),
        ("data: {manifest: m.jsonl}\ndata: {manifest: n.jsonl}", "written twice"),
        ('data: {manifest: "a\\0b"}', "data.manifest: is not a path"),
        (f"data: {{manifest: {'n' * 300}}}", "data.manifest: File name too long"),
        ("data: {manifest: ~nobody-of-this-name/m.jsonl}", "data.manifest: is not a path"),
        ("data: {manifest: .}", "data.manifest: no such file"),
        ("data: {manifest: m.jsonl}\nspec: {base: .}", ":2  spec.base"),
        ("data: {manifest: m.jsonl}\nspec: {base: ./m.jsonl}", "must be a .nemo file"),
        ("data: {manifest: m.jsonl}\nrecipe: evaluate\nspec: {model: gone.nemo}", ":3  spec.model: no such .nemo"),
        ("data: {manifest: m.jsonl}\nrecipe: evaluate\nspec: {hypotheses: m.jsonl}", ":3  spec.hypotheses"),
        ("data: {manifest: m.jsonl}\nrecipe: finetun", "Did you mean finetune"),
        ("data: {manifest: m.jsonl}\ngate: {baseline: gone.json}", ":2  gate.baseline: no such file"),
        ("data: {manifest: m.jsonl}\ngate: {baseline: m.jsonl}", "m.jsonl"),
        ("data: {manifest: m.jsonl}\nbudget: nowhere", "no budget of this name"),
        ("data: {manifest: m.jsonl}\nspec: {1: 2}", "spec"),
    ],
)  # fmt: skip
def test_a_job_that_is_wrong_is_one_line_and_nothing_is_written(
    fast: FastGround, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    if "gate: {baseline: m.jsonl}" in text:
        (fast.folder / "m.jsonl").write_text('{"text": "no audio"}\n')
    job = fast.folder / "job.yaml"
    job.write_text(text)
    assert says in refused(fast, job, capsys)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400), st.just("~x/y"),
    st.just("\0"), st.just(-1), st.just("auto"), st.dates(), st.binary(max_size=4), st.just([[]]), st.just({}),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.dictionaries(st.integers(), st.integers(), max_size=2, min_size=1),
)  # fmt: skip
PLACES = [
    (), ("recipe",), ("spec",), ("spec", "max_steps"), ("spec", "base"), ("spec", "learning_rate"),
    ("spec", "method"), ("spec", "batch_size"), ("spec", "max_duration_s"), ("spec", "seed"),
    ("spec", "general_manifest"),
    ("spec", "warmup_steps"), ("spec", "accumulate_grad_batches"), ("spec", "odd"), ("data",), ("data", "manifest"),
    ("data", "general"), ("data", "validation"), ("data", "val_fraction"), ("data", "seed"), ("data", "group_by"),
    ("data", "sensitivity"), ("gate",), ("gate", "baseline"), ("gate", "priority"), ("gate", "cycle"), ("budget",),
    ("resources",), ("resources", "providers"), ("resources", "gpus"), ("resources", "nodes"), ("on_overrun",),
]  # fmt: skip
BUDGET_PLACES = [
    (), ("default",), ("time_zone",), ("budgets",), ("budgets", "short"), ("budgets", "short", "max_hours"),
    ("budgets", "short", "per_run_usd"), ("budgets", "short", "concurrent_runs"), ("budgets", "short", "providers"),
    ("budgets", "short", "approval"), ("budgets", 7),
]  # fmt: skip


def put(tree: dict[str, Any], place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    held = tree
    for key in place[:-1]:
        held = held.setdefault(key, {})
    held[place[-1]] = value
    return tree


FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FUZZ
@given(place=st.sampled_from(PLACES), value=ODD)
def test_no_value_anywhere_in_a_job_makes_a_traceback(
    fast: FastGround, capsys: pytest.CaptureFixture[str], place: tuple[Any, ...], value: Any
) -> None:
    job = fast.job(3)
    tree = put(yaml.safe_load(job.read_text()), place, value)
    judged(fast, job, tree, job, capsys)


@FUZZ
@given(place=st.sampled_from(BUDGET_PLACES), value=ODD)
def test_no_value_anywhere_in_a_budget_makes_a_traceback(
    fast: FastGround, capsys: pytest.CaptureFixture[str], place: tuple[Any, ...], value: Any
) -> None:
    text = f"default: short\nbudgets: {{short: {{{CAPS}, max_hours: 3}}}}\n"
    judged(fast, fast.folder / "budgets.yaml", put(yaml.safe_load(text), place, value), fast.job(3), capsys)


def judged(fast: FastGround, file: Path, tree: Any, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    home = fast.folder.parent / f"home{next(FRESH)}"
    code = main(["--home", str(home), "plan", str(job), "--json"])
    out, err = capsys.readouterr()
    assert code in (0, 2, 4), (code, tree)
    (line,) = out.splitlines()
    if code:
        assert json.loads(line)["exit"] == code
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1, err
    if code == 2:
        assert not home.exists()
