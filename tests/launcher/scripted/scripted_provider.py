"""A provider that costs money, for tests: folders of this machine, at the rates and with the bill that a script says.

It is found as any other package's provider is: by the entry point beside it, once this folder is on PYTHONPATH.
$LAUNCHER_SCRIPT names a JSON file (all fields optional):

{"fractions": [0.5, 1.0],   # of what a lease has reserved, which its bill comes to; in turn
 "rate_factor": [1.0],      # what a machine really costs, of the offer's price; in turn
 "refuse_create": [0, 1],   # 1: sold out; in turn
 "refuse_release": 2}       # so many destroys do nothing

Beside it, `<script>.bill.jsonl` is the provider's own word, a line for each create and each end: tests believe it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.clock import Clock, iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import ZERO, Usd
from launcher.providers.base import Charge, Intent, Listing, Machine, Presence, SoldOutError
from launcher.providers.local import LocalProvider
from launcher.providers.traits import Traits


class ScriptedProvider:
    name = "scripted"
    traits = Traits(
        "secure", 60.0, proves_release=True, account_keys_on_host=False, prepaid=True, many_nodes=False,
        console="https://scripted.invalid/machines", released_by=("the test",),
    )  # fmt: skip

    def __init__(self, home: Home, clock: Clock) -> None:
        self._clock = clock
        self._inner = LocalProvider(home, clock, boxes=home.root / "scripted")
        self._script = Path(os.environ["LAUNCHER_SCRIPT"])
        self._bill = self._script.with_name(self._script.name + ".bill.jsonl")

    def unusable(self) -> str | None:
        return None

    def create(self, intent: Intent) -> Machine:
        with self._books() as (script, bill):
            nth = sum(line["event"] in ("create", "sold out") for line in bill)
            if turn(script.get("refuse_create", [0]), nth):
                self._write({"event": "sold out", "label": intent.label})
                raise SoldOutError(f"scripted: {intent.offer.offer_id} is sold out")
            rate = Usd(str(round(float(intent.offer.usd_per_hour) * turn(script.get("rate_factor", [1.0]), nth), 6)))
            usd = Usd(str(round(float(intent.reserved_usd) * turn(script.get("fractions", [1.0]), nth) - 5e-7, 6)))
            self._write({"event": "create", "label": intent.label, "usd_per_hour": str(rate), "will_cost": str(usd)})
        self._inner.create(intent)
        return Machine(intent.label, intent.label, rate)

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        presence, machine = self._inner.find(label)
        return presence, None if machine is None else Machine(label, label, self._of(label, "usd_per_hour"))

    def listing(self) -> Listing:
        return self._inner.listing()

    def connect(self, machine: Machine, keys: LeaseKeys) -> Any:
        return self._inner.connect(machine, keys)

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        return self.traits.released_by

    def forget(self, label: str) -> None:
        pass

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        return Charge(self._of(machine.label, "will_cost"), "invoice")

    def destroy(self, machine: Machine) -> None:
        with self._books() as (script, bill):
            refused = sum(line["event"] == "refused" for line in bill)
            if refused < script.get("refuse_release", 0):
                self._write({"event": "refused", "label": machine.label})
                return
        self._inner.destroy(machine)
        with self._books() as (_, bill):
            mine = {line["event"]: line for line in bill if line["label"] == machine.label}
            if "create" in mine and "end" not in mine:
                self._write({"event": "end", "label": machine.label, "usd": mine["create"]["will_cost"]})

    def _of(self, label: str, field: str) -> Usd:
        created = [line for line in read_bill(self._bill) if line["event"] == "create" and line["label"] == label]
        return Usd(created[0][field]) if created else ZERO

    @contextmanager
    def _books(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        with self._script.with_name(self._script.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            script = json.loads(self._script.read_text(encoding="utf-8")) if self._script.exists() else {}
            yield script, read_bill(self._bill)

    def _write(self, line: dict[str, Any]) -> None:
        with self._bill.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": iso(self._clock.now()), **line}) + "\n")


def turn(values: list[Any], nth: int) -> Any:
    return values[nth % len(values)]


def read_bill(path: Path) -> list[dict[str, Any]]:
    """The provider's books, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def billed(path: Path) -> Usd:
    """What all machines together have cost, those still there included at what they will."""
    return sum((Usd(line["will_cost"]) for line in read_bill(path) if line["event"] == "create"), ZERO)
