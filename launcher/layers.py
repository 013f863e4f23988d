"""Which layers of "always tears down" are in force: all of them, unless a test switches some off to see what is left.

    LAUNCHER_WITHOUT=sentinel,watchdog

For tests against a simulated cloud: where a real machine would be rented, the setting is refused. The runner's own
exits cannot be switched off; a test kills it.
"""

from __future__ import annotations

import os
from typing import Literal, get_args

from launcher.errors import BadInputError, nearest

VARIABLE = "LAUNCHER_WITHOUT"
#: The process here that outlives the runner; what is released at the start of verbs that rent and by `launcher reap`
#: on a timer; the process on the machine; SkyPilot's own clock on its machines.
Layer = Literal["sentinel", "reaper", "watchdog", "autostop"]
LAYERS: tuple[Layer, ...] = get_args(Layer)


def is_off(layer: Layer) -> bool:
    """Whether a test has switched this layer off. Raises BadInputError where the setting names one that is none."""
    return layer in switched_off()


def switched_off() -> tuple[Layer, ...]:
    """The layers that are switched off, in their own order; none, as a rule."""
    text = os.environ.get(VARIABLE, "")
    named = {part.strip() for part in text.split(",")} - {""} if text else set()
    for name in sorted(named - set(LAYERS)):
        close = nearest(name, LAYERS)
        fix = f"Did you mean {close}?" if close else f"They are {', '.join(LAYERS)}."
        raise BadInputError("is no layer that can be switched off.", key=VARIABLE, value=name, fix=fix)
    return tuple(layer for layer in LAYERS if layer in named)
