"""The gate before real machines: closed unless the environment opens it, and never with a layer switched off."""

from __future__ import annotations

import os

from launcher.approval import NOTHING
from launcher.errors import RefusedError
from launcher.layers import VARIABLE as WITHOUT
from launcher.layers import switched_off
from launcher.offers.offer import Offer

ALLOW_LIVE = "LAUNCHER_ALLOW_LIVE"  # "1": rent real machines


def refuse_live(offer: Offer) -> None:
    """Raise RefusedError where a real machine would be rented, unless the environment says that this is meant."""
    from launcher.providers.live import ENDPOINTS, is_live, where

    ours = offer.provider in ENDPOINTS or offer.via == "skypilot"  # what a plugin rents, its author answers for
    live = ours and is_live(offer.provider, offer.via)
    if live and (off := switched_off()):
        raise RefusedError(
            f"nothing real is rented without {' and '.join(off)}: that is for tests. {NOTHING}", key=WITHOUT,
            value=os.environ[WITHOUT], fix=f"unset {WITHOUT}",
        )  # fmt: skip
    if live and os.environ.get(ALLOW_LIVE) != "1":
        raise RefusedError(
            f"renting at {where(offer.provider)} is not open yet: the layers that release a machine when this "
            f"computer dies are not all proven. {NOTHING}", key="provider", value=offer.provider,
            fix=f"Practise with: make rehearse. To rent all the same, and watch it: export {ALLOW_LIVE}=1",
        )  # fmt: skip
