"""What time it is at a provider: the Date of any answer of its own endpoint. No key is sent, and nothing is asked."""

from __future__ import annotations

import os
import time
from datetime import datetime

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.offers import bounded
from launcher.offers.source import Context, SourceError
from launcher.providers.live import ENDPOINTS

ANSWER_S = 10.0


def moment_at(provider: str, clock: Clock) -> datetime | None:
    """This moment by the provider's clock, to the second; None where it has no endpoint of its own or says nothing.

    Labels carry deadlines that several computers judge: by this clock alone they all judge alike.
    """
    if provider not in ENDPOINTS:
        return None
    variable, usual = ENDPOINTS[provider]
    ctx = Context(clock, 0.0, ends=time.monotonic() + ANSWER_S)
    try:
        with effect("provider.clock"):
            return bounded.exchange(ctx, os.environ.get(variable) or usual, method="HEAD").date
    except SourceError:
        return None
