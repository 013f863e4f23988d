"""The line that every verb with a ledger says while something may still bill."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.cli.output import Output
    from launcher.ledger import Ledger


def warn_of_pending(ledger: Ledger, out: Output) -> None:
    """A line on stderr for each machine whose release is not proven."""
    from launcher.providers.traits import traits_of_provider

    for lease in ledger.unreleased():
        traits = traits_of_provider(lease.provider, "direct")
        by_hand = f"; by hand: {traits.console}" if traits and traits.console else ""
        out.warn(
            f"STILL BILLING? {lease.provider} {lease.label} (run {lease.run}) at ${lease.max_usd_per_hour}/h: "
            f"its release is not proven. Release it: launcher reap{by_hand}"
        )
