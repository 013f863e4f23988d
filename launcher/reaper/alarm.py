"""Tells people, through apprise, that something may still bill: at once, and every six hours until it is gone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from launcher.clock import Clock, iso, parse_iso
from launcher.home import Home
from launcher.notify import notify
from launcher.providers.traits import traits_of_provider
from launcher.reaper.books import Fact
from launcher.reaper.sweep import Reaped
from recipes.contract import write_json
from recipes.supervise import read_json

VARIABLE = "LAUNCHER_NOTIFY"  # an apprise address: a secret, by name only
AGAIN = timedelta(hours=6)


def raise_alarm(home: Home, done: Reaped, clock: Clock, environ: Mapping[str, str]) -> list[str]:
    """Tell of what is pending, and once that it is gone; what went wrong in telling, in words. Never raises."""
    if not environ.get(VARIABLE):
        return []
    file = home.root / "alarms.json"
    told = {label: str(at) for label, at in (read_json(file) or {}).items()}
    now = clock.now()
    due = [fact for fact in done.pending if _is_due(told.get(fact["label"]), now)]
    standing = {fact["label"] for fact in done.pending}
    over = [fact for fact in done.released if fact["label"] in told]
    wrong: list[str] = []
    if due:
        title = f"STILL BILLING? {len(standing)} rented machine{'s' * (len(standing) > 1)} not released"
        wrong = notify([VARIABLE], title, "\n".join(map(in_words, due)), environ)
    if over and not wrong:
        words = [f"{fact['provider']} {fact['label']} is released, proven twice." for fact in over]
        wrong = notify([VARIABLE], "Released after all", "\n".join(words), environ)
    if not wrong:  # what could not be told is told the next time
        kept = {label: at for label, at in told.items() if label in standing}
        with suppress(OSError):
            write_json(file, kept | {fact["label"]: iso(now) for fact in due})
    return wrong


def in_words(fact: Fact) -> str:
    """One pending machine: which, at what rate, why, and where a person can end it."""
    traits = traits_of_provider(fact["provider"], "direct")
    by_hand = f" To end it by hand: {traits.console}" if traits and traits.console else ""
    machine = f"{fact['provider']} {fact['label']} (run {fact['run']})"
    return f"{machine} at ${fact['usd_per_hour']}/h: {fact['why']}.{by_hand}"


def _is_due(told: str | None, now: datetime) -> bool:
    if told is None:
        return True
    try:
        return not parse_iso(told) <= now < parse_iso(told) + AGAIN  # a clock set back must not silence it
    except ValueError:
        return True
