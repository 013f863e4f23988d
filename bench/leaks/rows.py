"""The rows, in the order of the table of what plain SkyPilot was seen to do.

Where plain SkyPilot has an option that bears on a row, it is given: `--down -i 1` at each launch, `max_hourly_cost`
where the row is about a price.
"""

from __future__ import annotations

from bench.leaks import choosing, ending, launching
from bench.leaks.row import PROMPT_S, Row, gone

_GONE = "nothing bills when the watch is over"
_PRICE = "no machine is dearer than what was shown or approved"

ROWS = (
    Row("setup", "runtime set-up on the host fails", _GONE,
        launching.plain_setup, launching.ours_setup, gone, bare=True),
    Row("server", "API server killed mid-launch", _GONE, launching.plain_server, launching.ours_server, gone),
    Row("cancel", "Ctrl-C and cancel after the create", _GONE, launching.plain_cancel, launching.ours_cancel, gone),
    Row("ssh", "host never opens ssh", _GONE, launching.plain_ssh, launching.ours_ssh, gone, watch_s=5),
    Row("agent", "the node's agent (skylet) killed", _GONE, ending.plain_agent, ending.ours_agent, gone),
    Row("refused", "provider refuses to delete", f"no success is said while it bills; {_GONE}",
        ending.plain_refused, ending.ours_refused, ending.told_if_it_bills),
    Row("sold_out", "cheapest offer sold out", _PRICE,
        choosing.plain_sold, choosing.ours_sold, choosing.no_dearer),
    Row("vast", "a Vast machine at the price that was shown", _PRICE,
        choosing.plain_vast, choosing.ours_vast, choosing.no_dearer, words=choosing.MARKET,
        watch_s=5),
    Row("secrets", "the user's account keys on the rented host", "none is there",
        choosing.plain_secrets, choosing.ours_secrets, choosing.no_key, watch_s=5),
    Row("clock", "autostop's clock is started again", f"gone within {PROMPT_S:.0f} s of the end that was set",
        ending.plain_clock, ending.ours_clock, ending.on_time, watch_s=90),
    Row("alone", "nobody lives but the machine, and its agent is killed",
        f"gone within {PROMPT_S:.0f} s of its deadline, or of the job's end where it has none",
        ending.plain_alone, ending.ours_alone, ending.on_time),
    Row("end", "job finished", f"gone within {PROMPT_S:.0f} s of the job's end",
        ending.plain_end, ending.ours_end, ending.prompt),
)  # fmt: skip
