"""What is told of a batch when nothing more can be done now: rows, JSON, summary files, exit code."""

from __future__ import annotations

from typing import Any

from launcher.batch.file import Batch
from launcher.batch.money import Standing
from launcher.batch.scheduler import Ending, Scheduler
from launcher.batch.summary import Row, mark_best, markdown, reasons, row_of
from launcher.batch.worst import worst
from launcher.errors import ExitCode
from launcher.home import Home
from launcher.ledger import Batch as Approved
from launcher.ledger import LeaseState, Ledger, Run
from launcher.money import Usd
from launcher.plan import plan_of
from launcher.runner.control import is_running
from recipes.contract import write_atomic, write_json


def rows_of(batch: Batch, scheduler: Scheduler, ledger: Ledger) -> list[Row]:
    """One row for each job, in the order of the file."""
    runs, rows = scheduler.runs(), []
    for item in batch.items:
        run = runs.get(item.index)
        if item.same_as is not None:
            rows.append(Row(item.name, f"same as {item.same_as + 1}"))
        elif run is not None:
            rows.append(_row(item.name, run, ledger))
        elif item.index in scheduler.refused:
            rows.append(Row(item.name, "refused", scheduler.refused[item.index], exit=int(ExitCode.REFUSED)))
        else:
            still = scheduler.standstills.get(item.index)
            why = still.deferral.why if still else "not started"
            rows.append(Row(item.name, "deferred", why, exit=int(ExitCode.REFUSED)))
    return mark_best(rows)


def _row(name: str, run: Run, ledger: Ledger) -> Row:
    ceiling = plan_of(run.run, run.plan).ceiling_usd
    if run.over and run.outcome is not None:
        return row_of(name, run.run, str(run.state), run.outcome, ceiling)
    return row_of(name, run.run, str(run.state), None, ceiling, "its runner is at work, or died: launcher status")


def outcome_of(batch: Batch, approved: Approved, rows: list[Row], stands: Standing, ending: Ending, home: Home,
               ledger: Ledger) -> dict[str, Any]:  # fmt: skip
    """What `batch --json` prints."""
    folder = home.batch_dir(approved.batch)
    codes = [int(row.exit) for row in rows if row.exit is not None]
    unended = [row.run for row in rows if row.run is not None and row.exit is None]
    codes += [int(_died(run, ledger)) for run in unended if not is_running(home.run_dir(run))]
    code = ExitCode.OK if ending == "left" else worst(codes)
    told = [row for row in rows if row.run is not None]
    return {
        "batch": approved.batch, "name": batch.title, "file": str(batch.path), "state": ending, "exit": int(code),
        "runs": [row.as_json() for row in told],
        "deferred": [{"job": row.name, "why": row.why} for row in rows if row.state == "deferred"],
        "refused": [{"job": row.name, "why": row.why} for row in rows if row.run is None and row.state == "refused"],
        "same": [{"job": row.name, "as": row.state} for row in rows if row.state.startswith("same as")],
        "usd": {
            "approved": str(stands.amount), "charged": str(stands.charged), "reserved": str(stands.reserved),
            "left": str(stands.left),
        },
        "summary": str(folder / "summary.md"),
        "jobs": [row.as_json() for row in rows],
    }  # fmt: skip


def write_summary(batch: Batch, rows: list[Row], outcome: dict[str, Any], home: Home) -> None:
    """Write summary.md and summary.json beside each other in the batch's folder."""
    folder = home.batch_dir(str(outcome["batch"]))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "summary.md", markdown(batch.title, rows, [sum_line(outcome), *_list(rows)]))
    write_json(folder / "summary.json", outcome)


def sum_line(outcome: dict[str, Any]) -> str:
    """What it all came to, in a sentence."""
    usd, runs = outcome["usd"], outcome["runs"]
    done = sum(run["state"] == "settled" for run in runs)
    jobs = len(runs) + len(outcome["deferred"]) + len(outcome["refused"])
    words = [f"{done} of {jobs} jobs done"]
    words += [f"{len(outcome[name])} {name}" for name in ("deferred", "refused") if outcome[name]]
    held = f", ${usd['reserved']} still reserved" if Usd(usd["reserved"]) else ""
    return f"{', '.join(words)}; ${usd['charged']} charged of ${usd['approved']} approved{held}"


def _list(rows: list[Row]) -> list[str]:
    lines = reasons(rows)
    return ["", *(f"- {line}" for line in lines)] if lines else []


def _died(run_id: str, ledger: Ledger) -> ExitCode:
    """A run whose runner died for good: what it may still hold decides."""
    held = any(lease.state is not LeaseState.RELEASED for lease in ledger.leases(run_id))
    return ExitCode.RELEASE_PENDING if held else ExitCode.RECIPE_FAILED
