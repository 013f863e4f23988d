"""What a source answered, kept for minutes; and for a day in case it fails next time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from launcher.clock import iso, parse_iso
from launcher.home import Home
from launcher.offers.offer import Offer

KEPT_FOR_FAILURE = timedelta(days=1)  # shown, marked stale, when the source fails
_VERSION = 1
_OFFERS = TypeAdapter(list[Offer])


@dataclass(frozen=True)
class Kept:
    """One answer: when, what, and what was left out of it."""

    asked_at: datetime
    offers: list[Offer]
    note: str


def path_of(home: Home, name: str, *depends_on: str) -> Path:
    """The file of one source's answer to one question (disk size, addresses asked)."""
    digest = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()[:12]
    return home.root / "offers" / f"{name}-{digest}.json"


def read(path: Path, now: datetime, at_most: timedelta) -> Kept | None:
    """The answer kept at `path` if it is no older than `at_most`; None for none, a damaged or a future one."""
    try:
        held = json.loads(path.read_bytes())
        if held["version"] != _VERSION:
            return None
        asked_at = parse_iso(held["asked_at"])
        if not timedelta(0) <= now - asked_at <= at_most:
            return None
        return Kept(asked_at, _OFFERS.validate_python(held["offers"]), str(held["note"]))
    except (OSError, ValueError, ValidationError, KeyError, TypeError, RecursionError):
        return None


def write(path: Path, kept: Kept) -> None:
    """Keep an answer, for the owner's eyes only; a home that cannot be written costs only the next question."""
    body = {
        "version": _VERSION, "asked_at": iso(kept.asked_at), "note": kept.note,
        "offers": _OFFERS.dump_python(kept.offers, mode="json", exclude_defaults=True),
    }  # fmt: skip
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with contextlib.suppress(OSError):
        for folder in (path.parent.parent, path.parent):  # the home itself, too, may not be there yet
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(body, file)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        for old in path.parent.glob("*.json"):  # answers to questions that nobody asks any more
            if old.stat().st_mtime < path.stat().st_mtime - 2 * KEPT_FOR_FAILURE.total_seconds():
                old.unlink(missing_ok=True)
