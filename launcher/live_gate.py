"""The gate before real machines: closed while a layer that releases them is switched off."""

from __future__ import annotations

import os

from launcher.approval import NOTHING
from launcher.errors import RefusedError
from launcher.layers import VARIABLE as WITHOUT
from launcher.layers import switched_off
from launcher.offers.offer import Offer


def refuse_without_layers(offer: Offer) -> None:
    """Raise RefusedError where a real machine would be rented with a layer that releases it switched off."""
    from launcher.providers.live import ENDPOINTS, is_live

    ours = offer.provider in ENDPOINTS or offer.via == "skypilot"  # what a plugin rents, its author answers for
    if ours and is_live(offer.provider, offer.via) and (off := switched_off()):
        raise RefusedError(
            f"nothing real is rented without {' and '.join(off)}: that is for tests. {NOTHING}", key=WITHOUT,
            value=os.environ[WITHOUT], fix=f"unset {WITHOUT}",
        )  # fmt: skip
