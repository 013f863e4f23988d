"""The options that `plan`, `run`, `tune` and `batch` share: where to look for machines, and who approves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from launcher.approval import Consent
    from launcher.plan import Wishes


def choice_options(command: Any) -> Any:
    """`--offers`, `--provider`, `--gpu`, `--prefer`: as keyword arguments of these names."""
    for option in (
        click.option("--prefer", type=click.Choice(["cheapest", "fastest", "local"]),
                     help="Choose by cost in all, by time, or only this machine (default: here if it fits)."),
        click.option("--gpu", metavar="NAME", help="Only this GPU, such as L40S."),
        click.option("--provider", metavar="P", help="Only this provider."),
        click.option("--offers", type=click.Path(path_type=Path), metavar="FILE",
                     help="Prices from a file (JSON or CSV) instead of asking the providers."),
    ):  # fmt: skip
        command = option(command)
    return command


def consent_options(command: Any) -> Any:
    """`--confirm`, `--max-cost`, `--ephemeral-ledger`: as keyword arguments of these names."""
    for option in (
        click.option("--ephemeral-ledger", is_flag=True,
                     help="In CI: go on although this disk's ledger forgets the month."),
        click.option("--max-cost", metavar="USD", envvar="LAUNCHER_MAX_COST",
                     help="With --confirm: the most that is approved ($LAUNCHER_MAX_COST)."),
        click.option("--confirm", metavar="YES", envvar="LAUNCHER_CONFIRM",
                     help="Approve without a prompt, as for CI ($LAUNCHER_CONFIRM)."),
    ):  # fmt: skip
        command = option(command)
    return command


def wishes_of(given: dict[str, Any]) -> Wishes:
    """The choice options as a value; raises BadInputError for a GPU or a provider that nobody has."""
    from launcher.budgets import check_provider
    from launcher.errors import BadInputError
    from launcher.offers.gpus import check_gpu
    from launcher.plan import Wishes

    provider, gpu = given.get("provider"), given.get("gpu")
    for key, value, check in (("--provider", provider, check_provider), ("--gpu", gpu, check_gpu)):
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise BadInputError(str(error), key=key, value=value) from None
    return Wishes(provider=provider, gpu=gpu, prefer=given.get("prefer"), offers=given.get("offers"))


def consent_of(given: dict[str, Any]) -> Consent:
    """The consent options as a value; raises BadInputError for a --max-cost that is no amount."""
    from launcher.approval import Consent, amount_of

    if given.get("max_cost") is not None:
        amount_of(given["max_cost"])
    return Consent(given.get("confirm"), given.get("max_cost"), bool(given.get("ephemeral_ledger")))
