"""How a batch looks before its YES: every job with its hours and dollars, what packing would save, the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.batch.planning import Outlook, Prospect
from launcher.cli.show_plan import gpu_words, span_words
from launcher.money import ZERO
from launcher.viewer.state import clock_words

if TYPE_CHECKING:
    from launcher.batch.file import Batch
    from launcher.cli.output import Output


def show_outlook(batch: Batch, outlook: Outlook, out: Output) -> None:
    """Print the jobs as a table, then the packs, the sums and the rules."""
    from rich.table import Table

    wide = out.console.width >= 100
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("job", overflow="fold", min_width=14)
    table.add_column("where", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for name in ("expected", "at most"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in outlook.prospects:
        table.add_row(*_cells(each, outlook), style=None if each.planned else "dim")
    if len(outlook.plans) > 1:
        hours = sum(planned.plan.choice.estimate.seconds_p50 for planned in outlook.plans)
        table.add_row("", f"{len(outlook.plans)} jobs", "", clock_words(hours), f"${outlook.expected}",
                      f"${outlook.ceilings}", style="bold")  # fmt: skip
    out.say(table)
    for each in outlook.prospects:
        if each.planned is None and each.item.same_as is None:
            out.say(f"Refused  {each.item.index + 1} {each.item.name}: {each.why}", style="yellow")
    for pack in outlook.packs:
        jobs = _numbers(pack.indexes)
        out.say(f"Packed   jobs {jobs} on one {pack.where} save ${pack.saves_usd}: ${pack.usd} instead of "
                f"${pack.separate_usd} expected, {pack.hours_p90:.1f} h one after another")  # fmt: skip
    if outlook.packs:
        out.say("         The sums above are of jobs alone: a job gets a machine of its own where the shared one is "
                "not to be had.")  # fmt: skip
    _say_money(batch, outlook, out)


def as_json(outlook: Outlook) -> dict[str, Any]:
    """The outlook for summary.json and --json."""
    return {
        "expected_p50": str(outlook.expected), "ceilings": str(outlook.ceilings), "approved": str(outlook.amount),
        "packs": [pack.as_json() for pack in outlook.packs],
    }  # fmt: skip


def _say_money(batch: Batch, outlook: Outlook, out: Output) -> None:
    budget, caps = outlook.budget, outlook.caps
    if not outlook.plans:
        return  # no job can run: each reason stands above
    if outlook.amount == ZERO:
        out.say("Free: this machine costs nothing, so no YES is needed.", style="green")
        return
    at_once = batch.file.concurrency or budget.concurrent_runs
    out.say(
        f"Budget {outlook.budget_name}: ${caps.per_run_usd} a run, ${caps.per_day_usd} a day, "
        f"${caps.per_month_usd} a month ({caps.time_zone}); {at_once} at a time"
    )
    if outlook.amount < outlook.ceilings:
        out.say(
            f"The jobs may cost ${outlook.ceilings} together, the batch at most ${outlook.amount}: what does not fit "
            "waits until others have settled for less, and is refused when the money does not reach."
        )
    out.say(f"At most ${outlook.amount} for the whole batch, however many days it takes.", style="bold")


def _cells(each: Prospect, outlook: Outlook) -> tuple[str, ...]:
    number = str(each.item.index + 1)
    if each.planned is None:
        same = each.item.same_as
        return number, each.item.name, "refused" if same is None else f"same as {same + 1}: one run", "", "", ""
    plan = each.planned.plan
    offer, guess = plan.choice.offer, plan.choice.estimate
    where = "this machine" if plan.choice.is_local else offer.provider
    where, time = f"{where}, {gpu_words(plan.choice)}", span_words(guess.seconds_p50, guess.seconds_p90)
    return number, each.item.name, where, time, f"${plan.choice.usd_p50}", f"${plan.ceiling_usd}"


def _numbers(indexes: tuple[int, ...]) -> str:
    """1–4, 7: numbers as the table counts them."""
    runs: list[list[int]] = []
    for number in (index + 1 for index in indexes):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
