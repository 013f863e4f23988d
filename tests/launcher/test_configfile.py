from pathlib import Path

import pytest

from launcher.budgets import Budgets, choose_budget, load_budgets
from launcher.configfile import load
from launcher.errors import BadInputError

GOOD = """default: small
budgets:
  small: {per_run_usd: 2.50, per_day_usd: 5, per_month_usd: "20", max_usd_per_hour: 1}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_dollars_written_any_way_are_exact(tmp_path: Path) -> None:
    budget = load_budgets(write(tmp_path, GOOD)).budgets["small"]
    assert [str(budget.per_run_usd), str(budget.per_day_usd), str(budget.per_month_usd)] == ["2.50", "5.00", "20.00"]


@pytest.mark.parametrize(
    ("wrong", "line", "key", "says"),
    [
        (GOOD.replace("per_run_usd", "per_run"), 3, "budgets.small.per_run", "Did you mean per_run_usd (an amount"),
        (GOOD.replace("2.50", "cheap"), 3, "budgets.small.per_run_usd", "not an amount of dollars: 'cheap'"),
        (GOOD.replace("2.50", "-1"), 3, "budgets.small.per_run_usd", "cannot be negative"),
        (GOOD.replace("2.50", ".nan"), 3, "budgets.small.per_run_usd", "not an amount of dollars"),
        (
            GOOD.replace("1}", "1, concurrent_runs: 0}"),
            3,
            "budgets.small.concurrent_runs",
            "an integer of at least 1",
        ),
        (GOOD.replace("1}", "1, providers: [vats]}"), 3, "budgets.small.providers[0]", "Did you mean vast?"),
        (GOOD.replace("default: small", "default: big"), 1, "default", "'big' names no budget of this file"),
        (GOOD + "time_zone: Mars/Base\n", 4, "time_zone", "'Mars/Base' is not a time zone"),
        (GOOD.replace("1}", "1, approval: typed}"), 3, "budgets.small.approval", "It must be a list: [typed]."),
        (GOOD.replace("1}", "1, sensitivity: {phi: own}}"), 3, "budgets.small.sensitivity.phi", "a list: [own]."),
        (GOOD.replace("1}", "1, trust: {vast: own}}"), 3, "budgets.small.trust.vast", "it is not your own machine"),
        (GOOD + "default: small\n", 4, "", "written twice"),
        ("budgets: [", 1, "", "not valid YAML"),
        ("- one\n", None, "", "must be a mapping"),
        ("", None, "default", "is missing. Add it: text."),
    ],
)
def test_every_wrong_value_names_file_line_key_and_fix(
    tmp_path: Path, wrong: str, line: int | None, key: str, says: str
) -> None:
    path = write(tmp_path, wrong)
    with pytest.raises(BadInputError) as caught:
        load(path, Budgets)
    error = caught.value
    assert says in str(error)
    assert str(error).startswith(str(path))
    assert error.line == line
    assert error.key == key
    assert error.exit_code == 2


@pytest.mark.parametrize("written", ["5:00", "0x10", "0b11", "1_0", "1e9"])
def test_an_amount_that_yaml_would_read_as_another_number_is_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(BadInputError, match="not an amount of dollars"):
        load(write(tmp_path, GOOD.replace("per_run_usd: 2.50", f"per_run_usd: {written}")), Budgets)


@pytest.mark.parametrize("sign", ["\\e[2J", "\\a", "\\u202e", "\\x9b"])
def test_a_sign_that_a_terminal_acts_on_is_refused_with_its_line(tmp_path: Path, sign: str) -> None:
    with pytest.raises(BadInputError, match="a sign that a terminal acts on") as caught:
        load(write(tmp_path, GOOD.replace("small:", f'"sm{sign}all":')), Budgets)
    assert caught.value.line == 3


def test_a_leading_zero_changes_no_amount(tmp_path: Path) -> None:
    held = load(write(tmp_path, GOOD.replace("per_run_usd: 2.50", "per_run_usd: 010")), Budgets)
    assert held.budgets["small"].per_run_usd == 10


def test_a_file_that_is_not_utf8_or_not_there_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_bytes(b"default: \xff\n")
    with pytest.raises(BadInputError, match="cannot be read"):
        load(path, Budgets)
    with pytest.raises(BadInputError, match="no such file"):
        load(tmp_path / "nowhere.yaml", Budgets)


def test_a_misspelt_budget_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    budgets = load_budgets(write(tmp_path, GOOD))
    with pytest.raises(BadInputError, match="Did you mean small"):
        choose_budget(budgets, "smal", None)
