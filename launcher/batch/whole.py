"""`launcher batch` from its file to its table: load, plan, one YES, run, tell, notify."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.approval import NOTHING, Consent, ask_typed, preapproved
from launcher.batch.file import Batch, load_batch
from launcher.batch.planning import Outlook, budget_of, look_ahead
from launcher.batch.scheduler import Scheduler, Terms
from launcher.batch.show import show_outlook
from launcher.batch.summary import Row, plain, reasons, table
from launcher.batch.telling import outcome_of, rows_of, sum_line, write_summary
from launcher.batch.terms import Covered, find_batch, keep_terms, terms
from launcher.batch.watching import Watch
from launcher.cli.output import Output
from launcher.clock import Clock
from launcher.errors import BadInputError, RefusedError
from launcher.home import Home
from launcher.ledger import Batch as Approved
from launcher.ledger import Ledger
from launcher.money import ZERO, Usd
from launcher.notify import notify, unset
from launcher.plan import Wishes
from launcher.reaper.behind import reap_behind
from recipes.supervise import take


def run_batch(file: Path, home: Home, clock: Clock, wishes: Wishes, consent: Consent, out: Output) -> int:
    """Can leave runs under way, each with a runner of its own. Returns the exit code: the worst that happened."""
    batch = load_batch(file)
    ledger = Ledger.open(home.ensure(), clock)
    reap_behind(home, ledger)
    with _alone(batch, home):
        held = find_batch(ledger, batch.key)
        if held is not None and held.over:
            return _told_already(batch, held, out)
        for words in unset(batch.file.notify, os.environ):
            out.warn(words)
        ready = None if held is None else terms(ledger, held.batch)
        goes_on = held is not None and ready is not None
        if held is None or ready is None:
            held, ready = _approved(batch, held, home, ledger, clock, wishes, consent, out)
        watch = Watch(out, clock)
        with watch.listening():
            if goes_on:
                out.say(f"Batch {held.batch} goes on: {held.how} on {held.at[:16].replace('T', ' ')} UTC, "
                        f"at most ${held.amount_usd}")  # fmt: skip
            terms_now = Terms(batch, held, budget_of(batch, home)[2], ready)
            scheduler = Scheduler(terms_now, home, ledger, clock, wishes, watch.say)
            ending = scheduler.go_on(watch.asked)
        rows = rows_of(batch, scheduler, ledger)
        outcome = outcome_of(batch, held, rows, scheduler.standing(), ending, home, ledger)
        write_summary(batch, rows, outcome, home)
        if ending == "over":
            ledger.close_batch(held.batch, outcome)
    _show(rows, outcome, out)
    if ending == "left":
        out.say(f"Left running; nothing new is started until: launcher batch {file}")
    else:
        if ending != "over":
            out.say(f"What was not started can go on, without another YES: launcher batch {file}")
        title = f"Batch {batch.title}: {sum_line(outcome)}"
        told = f"Worst: exit {outcome['exit']}. {sum_line(outcome)}\n\n{plain(rows)}\n\n{outcome['summary']}"
        for words in notify([name for name in batch.file.notify if os.environ.get(name)], title, told, os.environ):
            out.warn(words)
    out.result(outcome)
    return int(outcome["exit"])


def _approved(batch: Batch, held: Approved | None, home: Home, ledger: Ledger, clock: Clock, wishes: Wishes,
              consent: Consent, out: Output) -> tuple[Approved, Covered]:  # fmt: skip
    """Plan, show, get the YES, and write down what it covers. Reserves nothing; rents nothing."""
    outlook = look_ahead(batch, home, clock, wishes)
    if consent.given and batch.file.total_usd is None and consent.max_cost is not None:
        with suppress(ValueError):  # then --max-cost is the amount; what is wrong with it is said below
            outlook = replace(outlook, amount=Usd(min(outlook.amount, Usd(consent.max_cost))))
    show_outlook(batch, outlook, out)
    if not outlook.plans:
        refusal = RefusedError("no job of the batch can run.", file=batch.path, fix="Each has its reason above.")
        refusal.facts = {"refused": [{"job": each.item.name, "why": each.why} for each in outlook.prospects]}
        raise refusal
    how = _consented(outlook, home, consent, out)
    if load_batch(batch.path).key != batch.key:
        raise BadInputError(
            f"a job or its data changed while the plan was being looked at. {NOTHING}", file=batch.path,
            fix="Plan it again.",
        )  # fmt: skip
    refused = {str(each.item.index): each.why for each in outlook.prospects if each.why}
    if held is not None:  # a launcher was killed between an earlier YES and its terms: that one covers nothing
        ledger.close_batch(held.batch, {})
    held, _ = ledger.create_batch(batch.key, outlook.amount, how, outlook.digest, str(batch.path))
    keep_terms(ledger, held.batch, outlook.allowed, refused, outlook.packed)
    ready = terms(ledger, held.batch)
    assert ready is not None
    return held, ready


def _consented(outlook: Outlook, home: Home, consent: Consent, out: Output) -> str:
    """How the batch's amount was approved; raises NotConfirmedError, RefusedError or BadInputError."""
    amount, name, budget = outlook.amount, outlook.budget_name, outlook.budget
    if amount == ZERO:
        return "free"
    if consent.given:
        preapproved(amount, name, budget, consent, shared_ledger=home.ledger_is_shared)
        return "preapproved"
    ask_typed(budget, name, amount, out, f"run {len(outlook.plans)} jobs")
    return "typed"


@contextmanager
def _alone(batch: Batch, home: Home) -> Iterator[None]:
    """Hold the batch against a second launcher; raises RefusedError when one is at it."""
    folder = home.root / "batches"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{batch.key[:24]}.lock").open("ab") as lock:
        if not take(lock.fileno()):
            raise RefusedError(
                "another launcher is at this batch now.", file=batch.path,
                fix="Watch its runs with: launcher status. It goes on here once that one has ended.",
            )  # fmt: skip
        yield


def _told_already(batch: Batch, held: Approved, out: Output) -> int:
    outcome = held.outcome or {}
    rows = [Row.from_json(each) for each in outcome.get("jobs", [])]
    out.say(f"Batch {held.batch} is over. To run its jobs again, give it another name: in {batch.path.name}")
    _show(rows, outcome, out)
    out.result(outcome)
    return int(outcome.get("exit", 0))


def _show(rows: list[Row], outcome: dict[str, Any], out: Output) -> None:
    out.say("")
    out.say(table(rows, out.console.width))
    out.say("")
    for line in reasons(rows):
        out.say(line, style="dim")
    best = [row for row in rows if row.best]
    if best:
        out.say(f"★ gained most: {', '.join(row.name for row in best)}", style="green")
    out.say(sum_line(outcome), style="bold")
    out.say(f"Summary  {outcome['summary']}")
