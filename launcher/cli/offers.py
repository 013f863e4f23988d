"""`launcher offers`: what can be rented now, at what price, from whom; and how each source answered."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common_options, context


@click.command("offers")
@click.option(
    "--offers",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take offers from FILE (CSV, JSON, JSON lines) instead of asking the providers.",
)
@click.option("--gpu", "gpus", multiple=True, metavar="NAME", help="Only this GPU, such as a100 or 'rtx 4090'.")
@click.option(
    "--provider", "providers", multiple=True, metavar="P", help="Only this provider, such as vast or lambda."
)
@click.option("--fresh", is_flag=True, help="Ask again, even where prices of the last 5 minutes are at hand.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Most offers to show; 0 shows all. (--json tells all unless a limit is given.)",
)
@common_options
@click.pass_context
def command(click_context: click.Context, file: Path | None, gpus: tuple[str, ...], providers: tuple[str, ...],
            fresh: bool, limit: int) -> int:  # fmt: skip
    """Show what can be rented now, cheapest first per GPU and hour. Nothing is rented and nothing is spent."""
    from launcher.budgets import check_provider
    from launcher.cli.show_offers import as_json, show_offers
    from launcher.clock import SystemClock
    from launcher.errors import BadInputError, ExitCode
    from launcher.home import Home
    from launcher.offers import ask_market
    from launcher.offers.filtering import cheapest_first, of_gpus

    for name in providers:
        try:
            check_provider(name)
        except ValueError as error:
            raise BadInputError(str(error), key="--provider", value=name) from None
    ctx, clock = context(), SystemClock()
    of_gpus([], gpus)  # a misspelt GPU is said before anybody is asked
    market = ask_market(Home.find(ctx.home), clock, providers=providers or None, file=file, fresh=fresh)
    found = cheapest_first(of_gpus(market.offers, gpus))
    given = click_context.get_parameter_source("limit") is click.core.ParameterSource.COMMANDLINE
    show_offers(found, market.sources, ctx.out, clock.now(), limit)
    ctx.out.result(as_json(found[: limit or None] if given else found, market.sources))
    if not market.sources:
        ctx.out.say(f"Nobody lists prices of {', '.join(providers)}: such machines are one's own.", style="yellow")
    asked = [source for source in market.sources if source.asked]
    return int(ExitCode.REFUSED if asked and not any(source.ok for source in asked) else ExitCode.OK)
