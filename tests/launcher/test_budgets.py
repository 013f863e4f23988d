from __future__ import annotations

from pathlib import Path

import pytest

from launcher.budgets import BUILT_IN, Budgets, load_budgets
from launcher.errors import BadInputError
from launcher.money import Usd

CAPS = "per_run_usd: 5, per_day_usd: 10, per_month_usd: 50, max_usd_per_hour: 2.5"


def written(folder: Path, more: str = "", caps: str = CAPS) -> Budgets:
    file = folder / "budgets.yaml"
    file.write_text(f"default: a\nbudgets:\n  a: {{{caps}{', ' + more if more else ''}}}\n", encoding="utf-8")
    return load_budgets(file)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("providers: [runpodd]", "Did you mean runpod?"),
        ("sensitivity: {phi: [own, marketplace]}", "phi never goes to a marketplace"),
        ("trust: {vast: own}", "trust.vast: it is not your own machine"),
        ("trust: {vats: secure}", "Did you mean vast?"),
        ("allow_trust: [anyone]", "allow_trust"),
        ("approval: [yes]", "approval"),
        ("providers: []", "providers"),
        ("max_hours: .nan", "max_hours"),
        ("max_hours: 0", "max_hours"),
        ("max_hours: 12h", "max_hours"),
        ("concurrent_runs: 0", "concurrent_runs"),
        ("time_zone: Mars/Olympus", "no such setting"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(tmp_path: Path, more: str, named: str) -> None:
    with pytest.raises(BadInputError) as caught:
        written(tmp_path, more)
    assert named in str(caught.value)
    assert "budgets.yaml:3" in str(caught.value)


@pytest.mark.parametrize("amount", ["-1", ".nan", ".inf", '"1e9"', "1e9", '"5,00"', '"5 USD"', "2000000", "$5"])
def test_a_cap_that_is_no_sane_amount_of_dollars_is_refused(tmp_path: Path, amount: str) -> None:
    with pytest.raises(BadInputError) as caught:
        written(tmp_path, caps=CAPS.replace("per_run_usd: 5", f"per_run_usd: {amount}"))
    assert "budgets.yaml:3" in str(caught.value)
    assert "per_run_usd" in str(caught.value)


@pytest.mark.parametrize("amount", ["0", "0.00001", "5", "5.00", '"5.00"', "1000000"])
def test_a_plain_amount_of_dollars_is_taken_exactly(tmp_path: Path, amount: str) -> None:
    budget = written(tmp_path, caps=CAPS.replace("per_run_usd: 5", f"per_run_usd: {amount}")).budgets["a"]
    assert budget.per_run_usd == Usd(amount.strip('"'))


def test_phi_never_goes_to_a_marketplace_even_where_the_file_does_not_say_so(tmp_path: Path) -> None:
    budget = written(tmp_path, "sensitivity: {public: [own]}").budgets["a"]
    assert budget.may_go("phi") == ("own",)
    assert budget.may_go("internal") == ("own",)


def test_a_cloud_of_skypilots_may_be_named(tmp_path: Path) -> None:
    assert written(tmp_path, "providers: [local, lambda, skypilot]").budgets["a"].providers[1] == "lambda"


def test_the_shipped_file_is_small_and_asks_a_person(repo: Path) -> None:
    shipped = load_budgets(repo / "budgets.yaml")
    assert shipped == BUILT_IN
    budget = shipped.budgets[shipped.default]
    assert budget.per_run_usd <= 5
    assert budget.per_month_usd <= 50
    assert budget.approval == ("typed",)
    assert not (budget.allow_unproven or budget.allow_account_keys_on_hosts or budget.allow_interruptible)
