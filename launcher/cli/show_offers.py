"""How offers look to a person: a table, cheapest first, then one line for each source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from launcher.cli.output import Output
    from launcher.offers import SourceReport
    from launcher.offers.offer import Offer

WIDE = 110  # columns of a screen from which bandwidth and disk are shown, too
NUMBERS = ("$/GPU-h", "memory", "reliable", "down", "disk GB-month")  # aligned to the right
BROKEN = ("GPU", "note")  # over several lines where they must be, between words


def show_offers(offers: Sequence[Offer], sources: Sequence[SourceReport], out: Output, now: datetime,
                limit: int) -> None:  # fmt: skip
    """Print the cheapest `limit` offers (0: all) and how each source answered."""
    from rich.table import Table
    from rich.text import Text

    shown = offers[: limit or None]
    if shown:
        wide = out.console.width >= WIDE
        rows = [_cells(offer, wide=wide) for offer in shown]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        columns = [name for name in rows[0] if any(row[name] for row in rows)]
        for name in columns:
            whole = wide or name not in BROKEN
            # A stranger chose these words: however long, the price beside them stays in sight.
            width = {"region": 24 if wide else 14, "GPU": 32, "note": 60}.get(name)
            table.add_column(
                name, justify="right" if name in NUMBERS else "left", no_wrap=whole and name != "note",
                max_width=width, overflow="ellipsis",
            )  # fmt: skip
        for offer, row in zip(shown, rows, strict=True):
            faded = offer.stale or offer.available is False
            table.add_row(*(Text(row[name]) for name in columns), style="dim" if faded else None)
        out.say(table)
        rest = len(offers) - len(shown)
        if rest:
            out.say(f"and {rest:,} more, dearer or sold out: --limit 0 shows all", style="dim")
    else:
        out.say("No offers.", style="yellow")
    out.say()
    for source in sources:
        out.say(_source(source, now))


def as_json(offers: Sequence[Offer], sources: Sequence[SourceReport]) -> dict[str, Any]:
    """What `launcher offers --json` prints; a file of it can be given to --offers again."""
    from dataclasses import asdict

    return {
        "offers": [offer.model_dump(mode="json") for offer in offers],
        "sources": [asdict(source) for source in sources],
    }


def _cells(offer: Offer, *, wide: bool) -> dict[str, str]:
    """An offer by column; what a narrow screen has no column for goes into the note."""
    from launcher.offers.filtering import usd_per_gpu_hour

    down, disk = offer.inet_down_mbps, offer.disk_usd_per_gb_month
    reliable = f"{offer.reliability:.1%}" if offer.reliability is not None else ""
    cells = {
        "$/GPU-h": f"{usd_per_gpu_hour(offer):.3f}",
        "GPU": offer.gpu if offer.count == 1 else f"{offer.count}x {offer.gpu}" if offer.count else "CPU only",
        "memory": f"{offer.vram_gb:.0f} GB" if offer.count else "–",
        "provider": offer.provider,
        "region": offer.region,
        "whose": offer.trust,
    }
    if wide:
        cells["reliable"] = reliable
        cells["down"] = f"{down:,.0f} Mbit/s" if down else ""
        cells["disk GB-month"] = f"${disk:.3f}" if disk else ""
    notes = [
        "" if wide else reliable,
        "sold out" if offer.available is False else "",
        "can be taken away" if offer.interruptible else "",
        f"of {offer.as_of[:10]}" if offer.stale else "",
        "" if offer.count else offer.gpu.removeprefix("none (").removesuffix(")"),
        offer.note,
    ]
    return cells | {"note": ", ".join(filter(None, notes))}


def _source(source: SourceReport, now: datetime) -> Any:
    """One source in a line: the mark, its name, what came, how old it is; or why nothing did."""
    from rich.table import Table
    from rich.text import Text

    mark, style = ("✓", "green") if source.ok else ("✗", "red") if source.asked else ("–", "dim")
    said = []
    if source.error:
        said.append(source.error)
    if source.ok or source.count:
        said.append(f"{source.count:,} offer{'s' * (source.count != 1)}{_age(source, now)}")
    if source.note:
        said.append(source.note)
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=1)
    row.add_column(width=7)
    row.add_column()
    row.add_row(Text(mark, style=style), source.name, Text("; ".join(said)))
    return row


def _age(source: SourceReport, now: datetime) -> str:
    """How old the oldest price of a source is, where that matters: `, prices of 4 min ago`."""
    from launcher.clock import parse_iso

    if not source.as_of or not source.count:
        return ""
    moment = parse_iso(source.as_of)
    if source.example:
        return f": example prices of {moment:%B %Y}"
    old = (now - moment).total_seconds()
    if old < 90:
        return ""
    return f", prices of {old / 60:.0f} min ago" if old < 7200 else f", prices of {moment:%Y-%m-%d %H:%M} UTC"
