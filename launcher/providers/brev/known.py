"""What is known here of leases at Brev beside the ledger: whose organization, which instance, since when."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.clock import parse_iso
from launcher.failpoints import effect
from launcher.home import Home
from launcher.providers.base import Machine
from recipes.contract import write_json

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")

#: What is known of a lease and goes into the ledger with its machine.
_KEPT = ("org", "org_name", "kind", "asked_at", "disk_usd_per_hour", "running_at", "not_running_at", "host", "port")


class Known:
    """Facts of leases by label, each in the home that `brev` is run in for it; removed with it. No secret among them.

    org, org_name, kind, asked_at, usd_per_hour, disk_usd_per_hour, created, ref (the instance's id),
    running_at,
    not_running_at (the last look before), deleted_at, never_ran, host, port, user, keys (the folder of its ssh keys).
    """

    def __init__(self, home: Home) -> None:
        self._folder = home.root / "rented" / "brev"
        self._gone: dict[str, dict[str, Any]] = {}  # of leases that are over: their charge may still be asked for

    def home(self, label: str) -> Path:
        """The home that `brev` is run in for this lease."""
        return self._folder / label

    def forget(self, label: str) -> None:
        """The lease is over: remove its home."""
        self._gone[label] = self.of(label)
        if LABEL.fullmatch(label):
            shutil.rmtree(self.home(label), ignore_errors=True)

    def nobodys(self) -> str:
        """A name for a home of no lease; two processes that ask at once do not share it."""
        return f".listing-{os.getpid()}-{threading.get_ident()}"

    def tidy(self, label: str) -> None:
        """Remove the home of what is no lease of ours: where the login is a key by itself, it holds that key."""
        if not self._path(label).exists():
            shutil.rmtree(self.home(label), ignore_errors=True)

    def last(self, label: str) -> dict[str, Any]:
        """What is known of a lease, or was until it was forgotten by this process."""
        return self.of(label) or self._gone.get(label, {})

    def _path(self, label: str) -> Path:
        return self._folder / label / "lease.json"

    def of(self, label: str) -> dict[str, Any]:
        """What is known of a lease; empty for one that nobody here has heard of."""
        try:
            held = json.loads(self._path(label).read_text(encoding="utf-8")) if LABEL.fullmatch(label) else {}
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}

    @effect("provider.note")
    def learn(self, label: str, **facts: Any) -> None:
        """Keep what is told; None tells nothing."""
        held = self.of(label)
        told = held | {name: value for name, value in facts.items() if value is not None}
        if told != held and LABEL.fullmatch(label):
            write_json(self._path(label), told)

    def meet(self, machine: Machine) -> None:
        """Learn from a machine that the ledger kept: this may be another computer than the one that rented it."""
        known, facts = self.of(machine.label), machine.facts
        fresh = {name: facts[name] for name in _KEPT if name in facts and name not in known}
        ref = machine.ref if machine.ref != machine.label else None
        self.learn(machine.label, ref=known.get("ref") or ref, **fresh,
                    usd_per_hour=known.get("usd_per_hour") or str(machine.usd_per_hour))  # fmt: skip

    def facts(self, label: str) -> dict[str, Any]:
        """What goes into the ledger with the lease's machine."""
        known = self.of(label)
        facts = {name: known[name] for name in _KEPT if name in known}
        return facts | {"rate_of": "brev search", "billed_from": known.get("asked_at", "")}

    def labels(self) -> list[str]:
        """Every lease that is noted here and not yet forgotten."""
        found = self._folder.glob("*/lease.json") if self._folder.is_dir() else ()
        return sorted(path.parent.name for path in found)

    def is_young(self, label: str, now: datetime, lag_s: float) -> bool:
        """Whether its machine may be so new that a list does not show it yet."""
        known = self.of(label)
        if known.get("deleted_at") or not known.get("asked_at"):
            return False
        return (now - parse_iso(str(known["asked_at"]))).total_seconds() < lag_s

    def is_due(self, label: str) -> bool:
        """Whether a complete list must show it: it was created, and nobody has asked for its end."""
        known = self.of(label)
        return bool(known.get("ref") or known.get("created")) and not known.get("deleted_at")
