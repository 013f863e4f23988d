"""`launcher reap`: ledger against providers; ends what is ours and should be gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from launcher.cli.output import Output
    from launcher.reaper import Fact


@click.command("reap")
@click.option("--max", "most", type=click.IntRange(0), default=10, show_default=True,
              help="End at most so many machines at once; the others stay pending.")  # fmt: skip
@common_options
def command(most: int) -> int:
    """Release machines whose run is over or past its deadline, and free what dead runs hold. Living runs are spared.

    Exit code 6 when something may still bill.
    """
    from dataclasses import asdict

    from launcher.clock import SystemClock
    from launcher.errors import ExitCode
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.reaper import reap

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    done = reap(home, Ledger.open(home, clock), clock, most)
    for fact in done.freed:
        money = f"${fact['reserved_usd']} of budget {fact['budget']} are free again; " if "budget" in fact else ""
        ctx.out.say(f"run {fact['run']}: {money}{fact['why']}")
    for fact in done.released:
        charged = f", ${fact['charged_usd']} charged" if "charged_usd" in fact else ""
        first, again = (text[11:19] for text in fact["proof"])  # ISO 8601: the time of day
        ctx.out.say(f"released {_machine(fact)}{charged}: absent {first}, absent again {again} UTC", "green")
    for fact in done.seen:
        ends = f" until {fact['deadline'][:16].replace('T', ' ')} UTC" if "deadline" in fact else ""
        ctx.out.say(f"left alone {_machine(fact)}, ${fact['usd_per_hour']}/h{ends}: {fact['why']}")
    _warn(ctx.out, done.pending, done.unknown)
    if not any(asdict(done).values()):
        ctx.out.say("nothing to reap")
    ctx.out.result({**asdict(done), "exit": int(ExitCode.RELEASE_PENDING if done.pending else ExitCode.OK)})
    return int(ExitCode.RELEASE_PENDING if done.pending else ExitCode.OK)


def _warn(out: Output, pending: list[Fact], unknown: list[Fact]) -> None:
    from launcher.providers.traits import traits_of_provider

    for fact in pending:
        traits = traits_of_provider(fact["provider"], "direct")
        by_hand = f" To end it by hand: {traits.console}" if traits and traits.console else ""
        out.warn(f"STILL BILLING? {_machine(fact)} at ${fact['usd_per_hour']}/h: {fact['why']}.{by_hand}")
    for fact in unknown:
        out.warn(f"{fact['provider']}: {fact['why']}. What it rents to us is unknown.")


def _machine(fact: Fact) -> str:
    return f"{fact['provider']} {fact['label']} (run {fact['run']})"
