"""What the ledger's tests believe: sums over its tables, read straight from the database, never the ledger's word."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg

from launcher.home import Home
from launcher.ledger import Caps
from launcher.money import Usd


def tables(home: Home, *statements: str) -> list[list[Any]]:
    """The rows of several SELECTs, all of one moment."""
    url = os.environ.get("LAUNCHER_LEDGER", "")
    if url.startswith("postgresql"):
        with psycopg.connect(url.replace("+psycopg", "")) as db:
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return [db.execute(statement).fetchall() for statement in statements]  # type: ignore[call-overload]
    with closing(sqlite3.connect(home.root / "ledger.sqlite", timeout=60, isolation_level=None)) as file:
        file.execute("BEGIN")
        return [file.execute(statement).fetchall() for statement in statements]


class Books:
    """Caps, and whether the tables keep them. All charges here are of one day."""

    def __init__(self, home: Home, caps: Caps, batch: str, batch_usd: Usd) -> None:
        self.home, self.batch, self.batch_usd = home, batch, Decimal(batch_usd)
        self.limit(caps)

    def limit(self, caps: Caps) -> None:
        self.caps = caps
        self.period = min(Decimal(caps.per_day_usd), Decimal(caps.per_month_usd))

    def check(self) -> None:
        """Every cap holds at this moment: charges + what open reservations may still be charged."""
        reservations, charges, batch_rows = tables(
            self.home, "SELECT run, amount_usd, settled_at FROM reservations", "SELECT run, amount_usd FROM charges",
            f"SELECT run FROM runs WHERE batch = '{self.batch}'",
        )  # fmt: skip
        charged = summed(charges)
        of_batch = {run for (run,) in batch_rows}
        open_ones = [(run, Decimal(usd)) for run, usd, settled in reservations if not settled]
        held = {run: max(Decimal(0), usd - charged.get(run, 0)) for run, usd in open_ones}
        assert sum(held.values()) + sum(charged.values()) <= self.period
        assert sum(usd for run, usd in (*held.items(), *charged.items()) if run in of_batch) <= self.batch_usd
        assert len(held) <= self.caps.concurrent_runs
        assert all(Decimal(usd) <= self.caps.per_run_usd for _, usd, _ in reservations)

    def kept(self, promised: dict[str, set[str]]) -> None:
        """What a process was told is done, is in the tables, whatever became of the process."""
        reserved, charges, journal = tables(
            self.home, "SELECT run, settled_at FROM reservations", "SELECT run, amount_usd FROM charges",
            "SELECT run, facts FROM events WHERE kind = 'reserved'",
        )  # fmt: skip
        first = {f"{run} {facts_of(facts)['amount_usd']}" for run, facts in journal}
        assert promised["reserved"] <= first
        assert {line.split()[0] for line in promised["reserved"]} <= {run for run, _ in reserved}
        assert promised["charged"] <= {f"{run} {usd}" for run, usd in charges}
        assert promised["settled"] <= {run for run, settled in reserved if settled}

    def holding(self) -> set[str]:
        """The runs whose reservations are open."""
        (rows,) = tables(self.home, "SELECT run FROM reservations WHERE settled_at IS NULL")
        return {run for (run,) in rows}


def replay(books: Books) -> dict[str, str]:
    """Go through the journal and add up after each event: the caps held at every moment, not only when we looked."""
    rows, batch_rows, final, charges = tables(
        books.home, "SELECT kind, run, facts FROM events ORDER BY seq",
        f"SELECT run FROM runs WHERE batch = '{books.batch}'",
        "SELECT run, amount_usd, settled_at FROM reservations", "SELECT run, amount_usd FROM charges",
    )  # fmt: skip
    of_batch = {run for (run,) in batch_rows}
    held: dict[str, Decimal] = {}
    charged: dict[str, Decimal] = defaultdict(Decimal)
    spent = spent_by_batch = peak = batch_peak = Decimal(0)
    most = events = 0
    for kind, run, stored in rows:
        facts = facts_of(stored)
        if kind in ("reserved", "extended"):
            held[run] = Decimal(facts["amount_usd"])
        elif kind == "charged":
            cost = Decimal(facts["amount_usd"])
            charged[run] += cost
            spent, spent_by_batch = spent + cost, spent_by_batch + (cost if run in of_batch else 0)
        elif kind in ("settled", "reservation.cancelled"):
            del held[run]  # and it was open
        else:
            continue
        events += 1
        open_usd = {run: max(Decimal(0), usd - charged.get(run, 0)) for run, usd in held.items()}
        total = sum(open_usd.values()) + spent
        of_it = sum(usd for run, usd in open_usd.items() if run in of_batch) + spent_by_batch
        assert total <= books.period, f"after event {events}"
        assert of_it <= books.batch_usd, f"after event {events}"
        assert len(held) <= books.caps.concurrent_runs, f"after event {events}"
        peak, batch_peak, most = max(peak, total), max(batch_peak, of_it), max(most, len(held))
    assert {run for run, _, settled in final if not settled} == set(held)
    assert summed(charges) == charged
    return {
        "money events": str(events), "day": f"{peak} of {books.period}",
        "batch": f"{batch_peak} of {books.batch_usd}", "at once": f"{most} of {books.caps.concurrent_runs}",
    }  # fmt: skip


def summed(charges: Iterable[tuple[str, str]]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = defaultdict(Decimal)
    for run, usd in charges:
        total[run] += Decimal(usd)
    return total


def facts_of(stored: Any) -> dict[str, Any]:
    """SQLite keeps JSON as text."""
    held: dict[str, Any] = json.loads(stored) if isinstance(stored, str) else stored
    return held
