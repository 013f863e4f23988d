import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from launcher.home import Home
from launcher.ledger import Caps, LeaseState, Ledger
from launcher.money import Usd

REPO = Path(__file__).resolve().parents[3]
CAPS = Caps("sweeps", Usd(5), Usd(10), Usd(50), concurrent_runs=9, time_zone="Europe/Zurich")
BUDGETS = """
default: interactive
time_zone: Europe/Zurich
budgets:
  interactive: {per_run_usd: 5.00, per_day_usd: 10.00, per_month_usd: 50.00, max_usd_per_hour: 2.50}
  sweeps: {per_run_usd: 5, per_day_usd: 10, per_month_usd: 50, max_usd_per_hour: 1, concurrent_runs: 2}
"""


class Clock:
    """Time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "budgets.yaml").write_text(BUDGETS)
    return folder


def launcher(home: Home, work: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LAUNCHER_HOME": str(home.root), "PYTHONPATH": str(REPO), "COLUMNS": "80"}
    command = [sys.executable, "-m", "launcher", *args]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=work, check=False)


def answer(home: Home, work: Path, *args: str) -> dict[str, Any]:
    ran = launcher(home, work, *args, "--json")
    assert ran.returncode == 0, ran.stderr
    held: dict[str, Any] = json.loads(ran.stdout)
    return held


def plan(recipe: str, provider: str, expected: str) -> dict[str, Any]:
    return {"recipe": recipe, "chosen": 0, "candidates": [{"usd_p50": expected, "offer": {"provider": provider}}]}


def rented(ledger: Ledger, key: str, held: dict[str, Any], ceiling: str, charged: str | None) -> str:
    run, _ = ledger.create_run(key, held, "d")
    ledger.reserve(run.run, CAPS, Usd(ceiling))
    lease = ledger.intend_lease(
        run.run, provider=held["candidates"][0]["offer"]["provider"], account="a", offer_id="1",
        max_usd_per_hour=Usd(1), reserved=Usd(ceiling), deadline="2027-11-20T20:00:00.000Z",
    )  # fmt: skip
    if charged is not None:
        ledger.charge(lease, Usd(charged), "rate x time")
        ledger.move_lease(lease.lease, LeaseState.RELEASED)
        ledger.settle(run.run)
    return run.run


def test_a_budget_shows_what_was_charged_what_is_held_and_what_is_left(home: Home, work: Path) -> None:
    ledger = Ledger.open(home)
    rented(ledger, "done", plan("finetune", "vast", "0.30"), "1.00", "0.4123")
    open_one = rented(ledger, "open", plan("finetune", "vast", "0.30"), "3.00", None)
    interactive, sweeps = answer(home, work, "budget")["budgets"]
    assert (interactive["budget"], interactive["default"], interactive["time_zone"]) == (
        "interactive", True, "Europe/Zurich",
    )  # fmt: skip
    assert [cap["left_usd"] for cap in interactive["caps"]] == ["5.00", "10.00", "50.00"]
    day = {name: text for name, text in sweeps["caps"][1].items() if name != "cap"}
    assert day == {"limit_usd": "10.00", "charged_usd": "0.4123", "reserved_usd": "3.00", "left_usd": "6.5877"}
    assert sweeps["concurrent_runs"] == {"limit": 2, "now": 1, "runs": [open_one]}
    assert sweeps["day"]["starts"].endswith(("22:00:00.000Z", "23:00:00.000Z"))
    shown = launcher(home, work, "budget").stdout
    assert "$10.00  $0.4123     $3.00   $6.5877" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines() if not line.startswith("From ")) <= 80


def test_a_look_at_the_budgets_of_a_new_machine_creates_nothing(local_home: Home, work: Path) -> None:
    for verb in ("budget", "costs"):
        assert launcher(local_home, work, verb).returncode == 0
    assert not local_home.root.exists()
    assert answer(local_home, work, "costs")["rows"] == []


def test_money_held_under_a_budget_that_the_file_does_not_name_is_shown(home: Home, work: Path) -> None:
    rented(Ledger.open(home), "open", plan("finetune", "vast", "0.30"), "3.00", None)
    (work / "budgets.yaml").write_text(BUDGETS.replace("  sweeps:", "  nights:"))
    assert answer(home, work, "budget")["other_reserved_usd"] == {"sweeps": "3.00"}
    assert "sweeps $3.00" in launcher(home, work, "budget").stdout


def test_costs_are_summed_by_day_recipe_and_provider(home: Home, work: Path) -> None:
    clock = Clock()
    today = f"{clock.time.astimezone(CAPS.zone):%Y-%m-%d}"
    clock.time -= timedelta(days=2)
    ledger = Ledger.open(home, clock)
    before = f"{clock.time.astimezone(CAPS.zone):%Y-%m-%d}"
    rented(ledger, "a", plan("finetune", "vast", "0.30"), "1.00", "0.4123")
    rented(ledger, "b", plan("evaluate", "runpod", "0.05"), "0.10", "0.02")
    over_midnight = rented(ledger, "c", plan("finetune", "vast", "0.40"), "2.00", None)
    ledger.create_run("d", plan("finetune", "vast", "9"), "d")  # never reserved
    clock.time += timedelta(days=2)
    ledger.charge(ledger.leases(over_midnight)[0], Usd("0.50"), "invoice")
    rows = answer(home, work, "costs")["rows"]
    assert [(row["key"], row["runs"], row["charged_usd"]) for row in rows] == [
        (before, 2, "0.4323"), (today, 1, "0.50"),
    ]  # fmt: skip
    by_provider = answer(home, work, "costs", "--by", "provider")
    assert by_provider["rows"] == [
        {"key": "runpod", "runs": 1, "expected_p50_usd": "0.05", "ceiling_usd": "0.10", "charged_usd": "0.02",
         "reserved_usd": "0.00", "currency": "USD"},
        {"key": "vast", "runs": 2, "expected_p50_usd": "0.70", "ceiling_usd": "3.00", "charged_usd": "0.9123",
         "reserved_usd": "1.50", "currency": "USD"},
    ]  # fmt: skip
    assert by_provider["total"]["charged_usd"] == "0.9323"
    assert [row["key"] for row in answer(home, work, "costs", "--by", "recipe")["rows"]] == ["evaluate", "finetune"]
    shown = launcher(home, work, "costs", "--by", "provider").stdout.splitlines()
    assert shown[2].split() == ["vast", "2", "$0.70", "$3.00", "$0.9123", "$1.50"]
    assert len({line.rstrip().rindex("$") for line in shown[1:4]}) == 1  # the amounts line up


@pytest.mark.parametrize("verb", ["budget", "costs"])
def test_a_ledger_that_cannot_be_read_is_one_line_and_exit_2(local_home: Home, work: Path, verb: str) -> None:
    local_home.ensure()
    (local_home.root / "ledger.sqlite").write_bytes(b"this is no database" * 99)
    ran = launcher(local_home, work, verb)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    told = json.loads(launcher(local_home, work, verb, "--json").stdout)
    assert told["exit"] == 2
    assert "the ledger cannot be used" in told["error"]["message"]
