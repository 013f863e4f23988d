"""Which layers of "always tears down" are in force: all of them, unless a test switches some off to see what is left.

    LAUNCHER_WITHOUT=sentinel,watchdog

For tests against a simulated cloud: where a real machine would be rented, the setting is refused. The runner's own
exits cannot be switched off; a test kills it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, get_args

from launcher.errors import BadInputError, nearest

if TYPE_CHECKING:
    from launcher.ledger import Ledger

VARIABLE = "LAUNCHER_WITHOUT"
RESCUE = "rescue"  # the kind of the journal's entries that say which layer did what the runner could not
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


def note_rescue(ledger: Ledger, run: str | None, layer: Layer, did: str, **facts: Any) -> None:
    """Keep in the journal that a layer stepped in: `did` is 'went on' or 'released'. Raises LedgerError."""
    ledger.journal(RESCUE, {"layer": layer, "did": did, **facts}, run=run)


def rescues(ledger: Ledger, run: str) -> list[dict[str, Any]]:
    """Which layers stepped in for a run, oldest first: {at, layer, did, ...}."""
    return [{"at": event["at"], **event["facts"]} for event in ledger.events(run) if event["kind"] == RESCUE]
