"""How a plan looks to a person: the choice beside the cheapest, the fastest and this machine; then what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.cli.output import Output
    from launcher.money import Usd
    from launcher.plan import Candidate, Plan
    from launcher.workflow import Planned

WIDE = 100  # columns from which the table has room for who releases
ACCENT = "bold cyan"  # money, YES, what is still billing


def show_plan(planned: Planned, out: Output, every: bool = False) -> None:
    """Print the choices as a table, then settings, money, budget and the worst case; `every`: all candidates."""
    from rich.text import Text

    plan, prepared = planned.plan, planned.prepared
    lines = _grid()
    held_out = f"{prepared.validation_rows:,} held-out clips"
    apart = f", {prepared.grouped_by} apart from training" if prepared.grouped_by else ""
    data = f"{prepared.train_rows:,} clips ({prepared.train_hours:.2f} h) to learn, {held_out}{apart}"
    if prepared.unlabelled:
        data = f"{prepared.validation_rows:,} clips ({prepared.validation_hours:.2f} h) to label"
    lines.add_row("Data", data)
    for warning in prepared.warnings:
        lines.add_row("", Text(warning, style="yellow"))
    for words in [] if plan.is_free else map(_source_words, plan.sources):
        if words:
            lines.add_row("", Text(words, style="yellow"))
    out.say(lines)
    out.say(_choices(plan, every, wide=out.console.width >= WIDE))
    notes = _grid()
    for index, why in enumerate(_why_others_lost(plan)):
        notes.add_row("" if index else "not", Text(why, style="dim"))
    for label, words in _terms(plan):
        notes.add_row(label, words)
    out.say(notes)
    if plan.is_free:
        out.say("Free: this machine costs nothing, so no YES is needed.", style="green")


def _source_words(source: dict[str, object]) -> str:
    """What is to be known of where prices came from; empty for one that simply answered."""
    if source["stale"]:
        return f"{source['name']}: prices of {str(source['as_of'])[:10] or 'an unknown day'}, too old to rent at"
    if source["ok"]:
        return ""
    return f"{source['name']} {'did not answer: ' if source['asked'] else ''}{source['error']}"


def _grid() -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    return grid


def _choices(plan: Plan, every: bool, wide: bool) -> Table:
    """A row each for the cheapest, the fastest and this machine (and the choice where it is none of them)."""
    from rich.table import Table
    from rich.text import Text

    labels: dict[int, list[str]] = {}
    for name, index in (("cheapest", plan.cheapest), ("fastest", plan.fastest), ("here", plan.local)):
        if index is not None:
            labels.setdefault(index, []).append(name)
    labels.setdefault(plan.chosen, ["chosen"])
    shown = list(range(len(plan.candidates))) if every else sorted(labels, key=lambda i: _order(plan, labels, i))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("GPU", overflow="fold")
    differs = plan.asked.get("method") == "auto"  # a cheaper machine may buy a lesser method: that must show
    if differs:
        table.add_column("method", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("at most", justify="right", no_wrap=True)
    if wide:
        table.add_column("if this machine dies, released by", overflow="fold")
    for index in shown:
        each = plan.candidates[index]
        name = ", ".join(labels.get(index, []))
        mark = "›" if index == plan.chosen else " "
        style = "bold" if index == plan.chosen else None if each.fits else "dim"
        cells = [f"{mark} {name}", _where(each), gpu_words(each), *([each.estimate.method] if differs else [])]
        if each.fits:
            cells += [span_words(each.estimate.seconds_p50, each.estimate.seconds_p90)]
            cells += [cents(each.usd_p50), cents(each.ceiling.usd)]
        else:
            cells += [span_words(each.estimate.seconds_p50, each.estimate.seconds_p90), "no", "—"]
        if wide:
            cells.append("—" if each.is_local else "; ".join(each.released_by))
        row = [Text(cell) for cell in cells]
        if index == plan.chosen and not each.is_local:
            for cell in row[4 + differs : 6 + differs]:
                cell.stylize(ACCENT)
        table.add_row(*row, style=style)
    return table


def _order(plan: Plan, labels: dict[int, list[str]], index: int) -> tuple[bool, int]:
    names = ["cheapest", "fastest", "chosen", "here"]
    return not plan.candidates[index].fits, min(names.index(name) for name in labels[index])


def _where(each: Candidate) -> str:
    offer = each.offer
    if each.is_local:
        return "this machine"
    parts = [offer.provider, offer.region, offer.trust]
    if offer.reliability is not None:
        parts.append(f"{100 * offer.reliability:.1f}%")
    if offer.stale:
        parts.append(f"price of {offer.as_of[:10]}")
    return " · ".join(part for part in parts if part)


def gpu_words(each: Candidate) -> str:
    """The GPU of a candidate, with how many when there are several."""
    offer = each.offer
    if not offer.count:
        return f"no GPU, {offer.gpu.rpartition(', ')[2].removesuffix(')')}"  # none (NAME, 2 cores)
    words = f"{offer.count} × {offer.gpu}" if offer.count > 1 else offer.gpu
    return f"{offer.nodes} machines of {words}" if offer.nodes > 1 else words


def span_words(low_s: float, high_s: float) -> str:
    """An interval of seconds in one unit: 31–44 min, 2.1–2.9 h."""
    scales = ((90, "s", 1, 0), (5400, "min", 60, 0), (72 * 3600, "h", 3600, 1), (float("inf"), "h", 3600, 0))
    _, unit, size, digits = next(scale for scale in scales if high_s < scale[0])
    low, high = f"{low_s / size:,.{digits}f}", f"{high_s / size:,.{digits}f}"
    return f"{low}–{high} {unit}" if low != high else f"{low} {unit}"


def cents(amount: Usd) -> str:
    """Dollars with two decimals, rounded up (an amount is never shown too low): $0.24."""
    from decimal import ROUND_CEILING, Decimal

    return f"${amount.quantize(Decimal('0.01'), rounding=ROUND_CEILING):,.2f}"


def _why_others_lost(plan: Plan) -> list[str]:
    """A line for this machine when it does not fit, then the most frequent reasons, with an example of each."""
    lost = [each for each in plan.candidates if not each.fits]
    found = [f"{'this machine' if each.is_local else each.offer.provider + ' ' + each.offer.gpu}: {each.why}"
             for each in lost if each.is_local]  # fmt: skip
    for item in plan.left_out[:4]:
        many = f"{item.count:,} offers" if item.count > 1 else "1 offer"
        found.append(f"{many}: {item.why} ({item.example})" if item.count > 1 else f"{item.example}: {item.why}")
    more = sum(item.count for item in plan.left_out[4:])
    return [*found, *([f"{more:,} more: launcher plan --json"] if more else [])]


def _simulation(choice: Candidate) -> list[str]:
    """Said first where nothing real would be rented."""
    from launcher.providers.live import ENDPOINTS, is_live, where

    provider = choice.offer.provider
    if provider not in ENDPOINTS or is_live(provider, choice.offer.via):
        return []
    return [f"{provider} is at {where(provider)}: nothing real is rented, and nothing costs anything"]


def _engine(choice: Candidate) -> list[str]:
    """Through whom a machine is rented where there is a choice, and what the other way would save."""
    from launcher.money import Usd
    from launcher.providers.registry import can_rent
    from recipes.constants import figure

    offer = choice.offer
    if offer.via != "skypilot":
        return []
    if not can_rent(offer.provider):
        return ["SkyPilot"]
    seconds = figure("phases.provision_skypilot_s")
    saved = Usd(offer.usd_per_hour * round(seconds) / 3600)
    less = f"about {seconds:.0f} s, {cents(saved)}"
    return [f"SkyPilot; rented directly (resources: {{via: direct}}) it would save {less}"]


def _otherwise(plan: Plan) -> list[str]:
    """Which machine is next where the chosen one is not to be had, inside the same amount."""
    for each in plan.candidates:
        if each is not plan.choice and not each.is_local and each.fits and plan.allowed.covers_instead(each.offer):
            rate = each.ceiling.max_usd_per_hour
            return [f"{_where(each)}, {gpu_words(each)} at up to ${rate}/h, for no more in all"]
    return []


def _terms(plan: Plan) -> list[tuple[str, str]]:
    """What is done there, and what it may cost: label and words."""
    choice, guess = plan.choice, plan.choice.estimate
    terms = [("Simulation", words) for words in _simulation(choice)]
    terms += [("Settings", _settings(plan.spec))]
    terms += [("", words) for words in guess.choices]
    memory = f"needs {guess.needs_gb:.1f} GB of {choice.offer.vram_gb:.1f} GB; " if choice.offer.count else ""
    terms.append(("Estimate", f"{memory}{guess.parameters / 1e6:,.1f} M parameters; time: {guess.source}"))
    if plan.is_free:
        return terms
    ceiling = choice.ceiling
    parts = [f"${ceiling.machine_usd:.3f} for {ceiling.deadline_h + ceiling.teardown_s / 3600:.1f} h at up to "
             f"${ceiling.max_usd_per_hour}/h"]  # fmt: skip
    parts += [f"${amount:.3f} {name}" for name, amount in (
        ("disk", ceiling.disk_usd), ("traffic", ceiling.transfer_usd), ("for a second attempt", ceiling.retry_usd)
    ) if amount]  # fmt: skip
    terms.append(("At most", f"{cents(ceiling.usd)}: {', '.join(parts)}"))
    spans = [f"{span_words(seconds, seconds)} {name}" for seconds, name in (
        (ceiling.provision_s, "to answer"), (ceiling.run_s, "to run"), (ceiling.after_s, "for the jobs to follow"),
        (ceiling.collect_s, "to collect"),
    ) if seconds]  # fmt: skip
    release = span_words(ceiling.teardown_s, ceiling.teardown_s)
    words = f"{ceiling.deadline_h:.1f} h after it is rented: {', '.join(spans)}; then {release} to release"
    terms.append(("Deadline", words))
    terms += [("Engine", words) for words in _engine(choice)]
    terms += [("Otherwise", words) for words in _otherwise(plan)]
    left = [f"${left} of ${plan.caps[cap]} left {when}" for cap, when in (
        ("per_day_usd", "today"), ("per_month_usd", "this month")
    ) if (left := plan.remaining_usd.get(cap)) is not None]  # fmt: skip
    terms.append(("Budget", f"{plan.budget}: ${plan.caps['per_run_usd']} a run, {', '.join(left)}"))
    terms.append(("Released", f"if this machine dies now, by: {'; '.join(choice.released_by)}"))
    terms.append(("Worst", f"if every guard of ours failed: {plan.worst_case}. A forgotten night (8 h) would be "
                           f"{cents(plan.idle_night_usd)}."))  # fmt: skip
    return terms


def _settings(spec: dict[str, object]) -> str:
    shown = ("base", "vocabulary", "model", "min_confidence", "keep_fraction", "method", "max_steps", "batch_size",
             "learning_rate", "precision", "replay_fraction")  # fmt: skip
    return ", ".join(f"{name} {spec[name]}" for name in shown if spec.get(name) is not None)
