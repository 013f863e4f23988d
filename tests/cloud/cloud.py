"""The cloud behind its providers' interfaces: machines, their states, bill, event log and faults, under one lock."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.cloud.bill import HOURS_A_MONTH, Meter
from tests.cloud.faults import Fault, Script
from tests.cloud.machine import Box, MachineError, Network

SCENARIOS = Path(__file__).with_name("scenarios.toml")
GONE = ("terminated",)


@dataclass
class Order:
    """What a create call asks for, in the words that all providers share."""

    provider: str
    label: str
    offer: str
    usd_per_hour: Decimal
    disk_gb: float
    disk_usd_gb_month: Decimal
    env: dict[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    boot_s: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Machine:
    """A rented machine as its provider knows it."""

    id: str
    order: Order
    usd_per_hour: Decimal
    meter: Meter
    created: float
    visible_from: float
    box: Box
    key: str = ""  # of this machine alone
    state: str = "booting"  # booting, running, stopped, deleting, terminated
    started: float | None = None
    ended: float | None = None
    never: str = ""  # "boots", "ssh": what this machine will never do
    dead: bool = False  # the host died; its provider does not know
    faults: list[Fault] = field(default_factory=list)

    @property
    def gone(self) -> bool:
        return self.state in GONE


def _override(held: dict[str, Any], change: dict[str, Any]) -> None:
    """Set figures of a scenario that are there; a name that is not is a mistake."""
    for name, value in change.items():
        if name not in held:
            raise KeyError(f"no such figure: {name}. There are: {', '.join(held)}")
        if isinstance(value, dict):
            _override(held[name], value)
        else:
            held[name] = value


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Cloud:
    """All of it. Every method that reads or changes machines holds the lock; nothing waits under it but a boot."""

    def __init__(self, folder: Path, network: Network, mark: str, *, seed: int, scenario: str,
                 layers: Sequence[Path] = (), binds: Sequence[Path] = (),
                 changes: Sequence[str] = ()) -> None:  # fmt: skip
        held = tomllib.loads(SCENARIOS.read_text(encoding="utf-8"))
        for change in changes:
            _override(held, tomllib.loads(change))
        self.figures: dict[str, Any] = held[scenario]
        self.catalog: dict[str, Any] = held
        self.folder, self.network, self.mark = folder, network, mark
        self.layers, self.binds = layers, binds
        self.random = random.Random(seed)
        self.lock = threading.RLock()
        self.machines: dict[str, Machine] = {}
        self.script = Script()
        self.jumped_s = 0.0
        self.numbers = itertools.cycle(range(2, 255))  # addresses are used again, as everywhere
        self.url = ""  # as machines reach the server
        self.over = threading.Event()
        self.accounts = {name: f"key-of-the-{name}-account-{self.token(12)}" for name in ("runpod", "vast", "brev")}
        self.ssh_keys: dict[str, list[str]] = {name: [] for name in self.accounts}
        self.events = 0
        folder.mkdir(parents=True, exist_ok=True)

    # -- time, chance, log ------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The providers' clock, seconds since 1970."""
        return time.time() + self.jumped_s

    def token(self, letters: int) -> str:
        return "".join(self.random.choices("abcdefghijkmnpqrstuvwxyz0123456789", k=letters))

    def note(self, event: str, **facts: Any) -> None:
        """One line of the event log, which is kept on disk."""
        with self.lock:
            self.events += 1
            row = {"n": self.events, "at": iso(self.now()), "event": event, **facts}
            with (self.folder / "events.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row, default=str) + "\n")

    # -- life of a machine ------------------------------------------------------------------------------------------

    def create(self, order: Order, name: str, key: str) -> Machine:
        """Rent: it bills from here on, and boots in its own time."""
        with self.lock:
            terms, now = self.catalog[order.provider], self.now()
            change = self.script.take(order.provider, "create", "price_change", offer=order.offer)
            rate = order.usd_per_hour * Decimal(str(change.params["factor"])) if change else order.usd_per_hour
            number = self._address()
            box = Box(
                name=name, number=number, network=self.network, folder=self.folder / "roots" / name, mark=self.mark,
                port=10000 + self.random.randrange(50000), disk_bytes=int(min(order.disk_gb, 8.0) * 2**30),
                layers=self.layers, binds=self.binds,
            )  # fmt: skip
            machine = Machine(name, order, rate, Meter(terms["billing_step_s"]), now, now, box, key=key)
            machine.visible_from = now + self.figures["listing_lag_s"]
            self._afflict(machine)
            hourly = order.disk_usd_gb_month * Decimal(str(order.disk_gb)) / HOURS_A_MONTH
            machine.meter.start("disk", hourly, now)
            if terms["gpu_billed_from"] == "create":
                machine.meter.start("gpu", rate, now)
            self.machines[name] = machine
            self.note("created", provider=order.provider, machine=name, label=order.label, usd_per_hour=rate)
        boot_s = self.figures["boot_s"] if order.boot_s is None else order.boot_s
        self._later(boot_s, lambda: self._boot(machine))
        return machine

    def _address(self) -> int:
        """The last number of a free address."""
        taken = {machine.box.number for machine in self.machines.values() if not machine.gone}
        return next(number for number in itertools.islice(self.numbers, 253) if number not in taken)

    def _afflict(self, machine: Machine) -> None:
        """The faults that were waiting for the next machine."""
        for name in ("never_boots", "never_ssh", "slow_link", "partition", "host_death", "disk_full", "listing_lag"):
            fault = self.script.take(machine.order.provider, "machine", name)
            if not fault:
                continue
            if name == "listing_lag":
                machine.visible_from = machine.created + fault.params["seconds"]
            elif name in ("never_boots", "never_ssh"):
                machine.never = name.removeprefix("never_")
            else:
                machine.faults.append(fault)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something in a while, unless the cloud is over by then."""

        def wait() -> None:
            if not self.over.wait(max(0.0, seconds)):
                what()

        threading.Thread(target=wait, daemon=True).start()

    def _boot(self, machine: Machine) -> None:
        with self.lock:
            if machine.state != "booting" or machine.never == "boots":
                return
            if machine.never != "ssh":
                try:
                    machine.box.start(machine.order.command, machine.order.env)
                except MachineError as error:
                    self.note("failed", provider=machine.order.provider, machine=machine.id, why=str(error))
                    return
            now = self.now()
            machine.state, machine.started = "running", now
            if self.catalog[machine.order.provider]["gpu_billed_from"] == "running":
                machine.meter.start("gpu", machine.usd_per_hour, now)
            self.note("running", provider=machine.order.provider, machine=machine.id)
            for fault in machine.faults:
                self.inflict(machine, fault)

    def stop(self, machine: Machine) -> None:
        """Stopped: the disk goes on billing, and no process survives."""
        with self.lock:
            if machine.state not in ("booting", "running"):
                return
            now, terms = self.now(), self.catalog[machine.order.provider]
            machine.box.destroy()
            machine.state = "stopped"
            machine.meter.stop("gpu", now)
            rate = Decimal(terms.get("stopped_disk_usd_gb_month", machine.order.disk_usd_gb_month))
            machine.meter.start("disk", rate * Decimal(str(machine.order.disk_gb)) / HOURS_A_MONTH, now)
            self.note("stopped", provider=machine.order.provider, machine=machine.id)

    def destroy(self, machine: Machine, by: str = "account", after_s: float = 0.0) -> None:
        """The end: it bills until it is gone, and then nothing of it is left."""
        with self.lock:
            if machine.gone or machine.state == "deleting":
                return
            self.note("delete", provider=machine.order.provider, machine=machine.id, by=by)
            if self.script.take(machine.order.provider, "delete", "delete_ignored"):
                self.note("delete_ignored", provider=machine.order.provider, machine=machine.id)
                return
            if after_s:
                machine.state = "deleting"
                self._later(after_s, lambda: self._end(machine))
            else:
                self._end(machine)

    def _end(self, machine: Machine) -> None:
        with self.lock:
            if machine.gone:
                return
            machine.state, machine.ended = "terminated", self.now()
            machine.meter.stop_all(machine.ended)
            machine.box.destroy()
            self.note("terminated", provider=machine.order.provider, machine=machine.id,
                      usd=machine.meter.usd(machine.ended))  # fmt: skip

    # -- faults -----------------------------------------------------------------------------------------------------

    def fault(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Script a fault; one of a machine that is there strikes at once."""
        if asked.get("fault") == "clear":
            with self.lock:
                self.script.faults.clear()
                return {"cleared": True}
        if asked.get("fault") == "end_all":  # no fault: a clean slate between two tests
            with self.lock:
                self.script.faults.clear()
                for machine in self.machines.values():
                    self._end(machine)
                return {"ended": True}
        fault = Fault.parse(asked)
        with self.lock:
            self.note("fault", **asked)
            if fault.fault == "clock_jump":
                self.jumped_s += fault.params["seconds"]
            elif fault.machine:
                self.inflict(self.machines[fault.machine], fault)
            else:
                self.script.faults.append(fault)
        return fault.told()

    def inflict(self, machine: Machine, fault: Fault) -> None:
        """A fault of a machine, now."""
        box, seconds = machine.box, fault.params.get("seconds")
        if fault.fault == "heal":
            box.cut(on=False)
        elif fault.fault == "partition":
            box.cut(on=True)
            if seconds is not None:
                self._later(seconds, lambda: box.cut(on=False))
        elif fault.fault == "slow_link":
            box.slow(fault.params["mbit"], fault.params["delay_ms"])
        elif fault.fault == "disk_full":
            box.fill_disk()
        elif fault.fault == "host_death":
            self._later(fault.params["after_s"], lambda: self._die(machine))
        self.note("struck", machine=machine.id, fault=fault.fault)

    def _die(self, machine: Machine) -> None:
        with self.lock:
            machine.dead = True
            machine.box.destroy()
            self.note("host_died", machine=machine.id)

    # -- what can be asked ------------------------------------------------------------------------------------------

    def seen(self, provider: str) -> list[Machine]:
        """The account's machines, as a listing would show them."""
        with self.lock:
            now = self.now()
            return [m for m in self.machines.values()
                    if m.order.provider == provider and not m.gone and m.visible_from <= now]  # fmt: skip

    def find(self, provider: str, name: str) -> Machine | None:
        """The machine of this id or label, as an exact lookup would."""
        return next((m for m in self.seen(provider) if name in (m.id, m.order.label)), None)

    def bill(self) -> dict[str, Any]:
        """The oracle: what every machine has cost up to now."""
        with self.lock:
            now = self.now()
            rows = [
                {
                    "provider": m.order.provider, "id": m.id, "label": m.order.label, "state": m.state,
                    "usd": str(m.meter.usd(now)), "gpu_usd": str(m.meter.usd(now, "gpu")),
                    "disk_usd": str(m.meter.usd(now, "disk")), "gpu_seconds": m.meter.seconds(now, "gpu"),
                    "usd_per_hour": str(m.usd_per_hour), "billing_step_s": m.meter.step_s, "bills": m.meter.runs,
                    "created": iso(m.created), "started": m.started and iso(m.started),
                    "ended": m.ended and iso(m.ended),
                }
                for m in self.machines.values()
            ]  # fmt: skip
            total = sum((Decimal(str(row["usd"])) for row in rows), Decimal(0))
            return {"now": iso(now), "total_usd": str(total), "machines": rows}

    def close(self) -> None:
        """End every machine; what is left to do after a kill, `down` does."""
        self.over.set()
        with self.lock:
            for machine in self.machines.values():
                machine.box.destroy()
