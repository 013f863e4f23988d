"""How a plan looks to a person: every candidate with its time and money, then what the choice means."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.cli.output import Output
    from launcher.plan import Candidate
    from launcher.workflow import Planned


def show_plan(planned: Planned, out: Output) -> None:
    """Print the candidates as a table, the settings in a line, and what it may cost."""
    from rich.table import Table

    plan, prepared = planned.plan, planned.prepared
    held_out = f"{prepared.validation_rows} held-out clips"
    apart = f", {prepared.grouped_by} apart from training" if prepared.grouped_by else ""
    out.say(f"Data  {prepared.train_rows} clips ({prepared.train_hours:.2f} h) to learn, {held_out}{apart}")
    for warning in prepared.warnings:
        out.say(f"      {warning}", style="yellow")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "where", "GPU", "time", "cost"):
        table.add_column(name, overflow="fold")
    for index, candidate in enumerate(plan.candidates):
        chosen = index == plan.chosen
        table.add_row("›" if chosen else "", *_cells(candidate), style="bold" if chosen else None)
    out.say(table)
    out.say(f"Settings  {_settings(plan.spec)}")
    if plan.ceiling_usd == 0:
        out.say("Free: this machine costs nothing, so no YES is needed.", style="green")


def _cells(candidate: Candidate) -> tuple[str, str, str, str]:
    from launcher.viewer.state import clock_words

    where = "this machine" if candidate.offer.provider == "local" else candidate.offer.provider
    guess = candidate.estimate
    time = f"{clock_words(guess.seconds_p50)} – {clock_words(guess.seconds_p90)}"
    if not candidate.fits:
        return where, candidate.offer.gpu, f"no: {candidate.why}", ""
    return where, candidate.offer.gpu, time, f"${candidate.usd_p50}"


def _settings(spec: dict[str, object]) -> str:
    shown = ("base", "method", "max_steps", "batch_size", "learning_rate", "precision", "replay_fraction")
    return ", ".join(f"{name} {spec[name]}" for name in shown if spec.get(name) is not None)
