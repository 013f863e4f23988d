"""What is left of each budget, and what was spent for what: the figures of `launcher budget` and `launcher costs`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from launcher.budgets import Budgets
from launcher.clock import Clock, iso, parse_iso
from launcher.ledger import Caps, Ledger, Run
from launcher.money import ZERO, Usd

By = Literal["day", "recipe", "provider"]
CURRENCY = "USD"


@dataclass(frozen=True)
class CostRow:
    """Runs that have a day, a recipe or a provider in common, and their money (USD)."""

    key: str
    runs: int
    expected_p50_usd: Usd
    ceiling_usd: Usd  # what was reserved for them
    charged_usd: Usd
    reserved_usd: Usd  # of that, what is still held

    def as_json(self) -> dict[str, Any]:
        """A row of `costs --json`."""
        money = {name: str(getattr(self, name)) for name in MONEY}
        return {"key": self.key, "runs": self.runs, **money, "currency": CURRENCY}


MONEY = ("expected_p50_usd", "ceiling_usd", "charged_usd", "reserved_usd")


def cost_rows(ledger: Ledger, by: By, time_zone: str) -> list[CostRow]:
    """One row a key, in order. A run's day is that of its last charge, or of its beginning where it has none."""
    zone = ZoneInfo(time_zone)
    charges = ledger.charges()
    charged: dict[str, Usd] = {}
    for charge in charges:
        charged[charge.run] = charged.get(charge.run, ZERO) + charge.amount_usd
    last = {charge.run: charge.at for charge in charges}
    reserved = {held.run: held for held in ledger.reservations()}
    grouped: dict[str, list[CostRow]] = {}
    for run in ledger.runs():
        held = reserved.get(run.run)
        if held is None:
            continue  # refused or cancelled before it could cost anything
        spent = charged.get(run.run, ZERO)
        still = ZERO if held.settled_at else Usd(max(ZERO, held.amount_usd - spent))
        day = parse_iso(last.get(run.run, run.created_at)).astimezone(zone).date().isoformat()
        key = {"day": day, "recipe": str(run.plan.get("recipe", "?")), "provider": _chosen(run, "provider")}[by]
        row = CostRow(key, 1, Usd(_candidate(run).get("usd_p50", "0")), held.amount_usd, spent, still)
        grouped.setdefault(key, []).append(row)
    return [total(key, grouped[key]) for key in sorted(grouped)]


def total(key: str, rows: Iterable[CostRow]) -> CostRow:
    """The sum of rows."""
    held = list(rows)
    sums = {name: sum((getattr(row, name) for row in held), ZERO) for name in MONEY}
    return CostRow(key, sum(row.runs for row in held), **sums)


def budget_facts(budgets: Budgets, ledger: Ledger | None, clock: Clock) -> list[dict[str, Any]]:
    """`budgets[]` of `budget --json`: each named budget with its caps; without a ledger nothing was spent yet."""
    return [_facts(name, budgets, ledger, clock) for name in budgets.budgets]


def _facts(name: str, budgets: Budgets, ledger: Ledger | None, clock: Clock) -> dict[str, Any]:
    budget = budgets.budgets[name]
    caps = Caps.of(name, budget, budgets.time_zone)
    now = clock.now()
    standings = ledger.standings(caps) if ledger else caps.untouched(now)
    runs = ledger.holders(name) if ledger else []
    periods = {"day": caps.day(now), "month": caps.month(now)}
    return {
        "budget": name,
        "default": name == budgets.default,
        "time_zone": budgets.time_zone,
        **{key: {"starts": iso(each.starts), "ends": iso(each.ends)} for key, each in periods.items()},
        "caps": [
            {
                "cap": each.cap, "limit_usd": str(each.limit), "charged_usd": str(each.charged),
                "reserved_usd": str(each.reserved), "left_usd": str(floor(each.left)),
            }
            for each in standings
        ],
        "concurrent_runs": {"limit": budget.concurrent_runs, "now": len(runs), "runs": runs},
        "max_usd_per_hour": str(budget.max_usd_per_hour),
        "max_hours": budget.max_hours,
    }  # fmt: skip


def unnamed(budgets: Budgets, ledger: Ledger) -> dict[str, Usd]:
    """What is reserved (USD) under budgets that the file does not name (any more)."""
    found: dict[str, Usd] = {}
    for held in ledger.reservations():
        if not held.settled_at and held.budget not in budgets.budgets and held.amount_usd > ZERO:
            found[held.budget] = found.get(held.budget, ZERO) + held.amount_usd
    return found


def floor(amount: Usd) -> Usd:
    """To what is shown of it, never too high: what is left is not rounded up."""
    return Usd(amount.quantize(Decimal("0.0001"), rounding=ROUND_FLOOR))


def dollars(amounts: Iterable[str]) -> list[str]:
    """Amounts of one column, all with cents or all with hundredths of a cent: they line up."""
    held = list(amounts)
    places = 4 if any(len(text.partition(".")[2]) > 2 for text in held) else 2
    return [f"${Decimal(text):.{places}f}" for text in held]


def _candidate(run: Run) -> dict[str, Any]:
    candidates = run.plan.get("candidates") or [{}]
    held = candidates[run.plan.get("chosen") or 0]
    return held if isinstance(held, dict) else {}


def _chosen(run: Run, field: str) -> str:
    return str(_candidate(run).get("offer", {}).get(field, "?"))
