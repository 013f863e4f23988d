"""SkyPilot as an engine: it launches bare machines and arms their end; the provider itself is believed, not SkyPilot.

The region is pinned where SkyPilot's catalog has the offer's; it is left open where it has not.

What SkyPilot 0.14.1 does otherwise, and what is done here about it: account keys and one ssh key for everything go
to each machine (a private home with one key, and nothing uploaded: `nothing_uploaded.py`); a sold-out offer becomes
another, dearer one (one machine type, no retries); a host that fails is left up, and `sky down` exits 0 though the
provider refused (the witness is asked for the end, and for the proof).
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from launcher.clock import Clock, iso, parse_iso
from launcher.failpoints import effect
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.gang import nodes_of
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.rented import rented_hosts
from launcher.offers.offer import Offer
from launcher.offers.source import NotAskedError
from launcher.providers.base import (
    Charge,
    CreateRefusedError,
    Intent,
    Listing,
    Machine,
    MachineFailedError,
    Presence,
    ProviderError,
    SoldOutError,
    by_rate,
)
from launcher.providers.runpod import RunPodProvider
from launcher.providers.runpod_api import IMAGE
from launcher.providers.skypilot.arming import ERRAND_S, SET_UP_S, is_armed, minutes_until, rearm
from launcher.providers.skypilot.clouds import CLOUDS
from launcher.providers.skypilot.lodging import Lodging
from launcher.providers.skypilot.server import VERSION, NotInForceError, Server
from launcher.providers.traits import Traits, traits_of_provider

LAUNCH_S = 120.0  # for the request to be accepted; SkyPilot's client starts in some 3 s
CREATE_S = 300.0  # from then to a machine that the provider shows, or to SkyPilot's word that there is none
DOWN_S = 300.0
START_S = 300.0  # until a command is in the queue of several machines: some 10 s on a quiet computer
LOOK_S = 1.0
GOES_ON = ("PENDING", "RUNNING", "WAITING")  # a request that has not ended

#: In SkyPilot's words of a failed launch: what the provider itself said when it had none.
_SOLD_OUT = re.compile(
    r"no longer any instances|no instances (are )?(currently )?available|not have the resources|sold out"
    r"|out of (capacity|stock)|insufficient[- ]capacity",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"unauthori[sz]ed|forbidden|insufficient (funds|balance)|spend(ing)? limit", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Raised before SkyPilot has asked any provider for a machine (sky/exceptions.py).
_BEFORE_ANY = ("UserRequestRejectedByPolicy", "InvalidSkyPilotConfigError", "NoCloudAccessError", "NotSupportedError",
               "ResourcesMismatchError", "InvalidClusterNameError", "ValueError", "ImportError")  # fmt: skip


class SkyPilotProvider:
    """One cloud, rented through SkyPilot; each lease has an API server and a home of its own till it is forgotten."""

    def __init__(self, cloud: str, home: Home, clock: Clock) -> None:
        traits = traits_of_provider(cloud, "skypilot")
        assert traits and cloud in CLOUDS
        self.name = cloud
        self.traits: Traits = traits
        self._home, self._clock = home, clock
        self._witness: RunPodProvider | None = _witness(cloud, home, clock)

    def unusable(self) -> str | None:
        """Without SkyPilot 0.14.1, or without the cloud's key."""
        try:
            found = version("skypilot")
        except PackageNotFoundError:
            return "SkyPilot is not installed. Fix: pip install 'parakeet-launcher[cloud]'"
        if found != VERSION:
            return (
                f"SkyPilot {found} is installed; what keeps account keys off the machine is tested with {VERSION} "
                f"alone. Fix: pip install 'skypilot=={VERSION}'"
            )
        if self._witness is not None and (why := self._witness.unusable()):
            return why
        return CLOUDS[self.name].missing() or None

    def create(self, intent: Intent) -> Machine:
        """A machine of exactly the offer's type, launched bare, with an end that it brings about itself."""
        offer = intent.offer
        why = self.unusable()
        if why:
            raise CreateRefusedError(f"nothing was rented through SkyPilot: {why}")
        if intent.keys is None or not _type_of(offer):
            raise CreateRefusedError(f"{offer.offer_id!r} names no machine type that SkyPilot can launch.")
        if offer.nodes > 1 and not self.traits.many_nodes:
            raise CreateRefusedError(f"SkyPilot rents no {offer.nodes} machines as one at {self.name}.")
        lodging = self._lodging(intent.label)
        if lodging.facts().get("asked"):
            raise ProviderError(f"{intent.label} was asked for before: look for it.")
        try:
            self._ready(lodging, intent.keys, offer.nodes)
            return self._launched(intent, lodging)
        except CreateRefusedError:
            self.forget(intent.label)
            raise
        except SoldOutError:
            lodging.note(sold_out=True)
            raise

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """By the witness; where there is none, by SkyPilot's word: `traits` call such a release unproven."""
        if self._witness is not None:
            presence, machine = self._witness.find(label)
            return presence, self._with(machine)
        rows = self._rows(label)
        if rows is None:
            return Presence.UNKNOWN, None
        found = next((row for row in rows if row.get("name") == label), None)
        if found:
            return Presence.PRESENT, self._machine(label, found)
        return (Presence.UNKNOWN if self._is_launching(self._lodging(label)) else Presence.ABSENT), None

    def listing(self) -> Listing:
        """The witness's; without one SkyPilot's word about this computer's leases, whole when each was answered."""
        if self._witness is not None:
            return self._witness.listing()
        folder = self._home.root / "skypilot"
        labels = sorted(one.name for one in folder.glob("[!.]*")) if folder.is_dir() else []
        found = [self.find(label) for label in labels if self._lodging(label).facts().get("cloud") == self.name]
        machines = tuple(machine for _, machine in found if machine)
        return Listing(machines, complete=all(presence is not Presence.UNKNOWN for presence, _ in found))

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """Once SkyPilot says that it is up, which is when its autostop is armed; over a key pinned by us."""
        lodging = self._lodging(machine.label)
        held = lodging.facts()
        if held.get("asked") and not held.get("up"):
            state = self._server(lodging).state_of(str(held["request"])) if held.get("request") else None
            if state in GOES_ON:
                return None
            if state != "SUCCEEDED":
                raise MachineFailedError(f"SkyPilot did not set the machine up ({state or 'its server is gone'}).")
            lodging.note(up=iso(self._clock.now()))
        if self._witness is not None:
            return self._witness.connect(machine, keys)
        rows = self._rows(machine.label, refresh=False) or []
        row = next((row for row in rows if row.get("name") == machine.label), None)
        if row is None or not row["doors"] or len(row["doors"]) < row["nodes"]:
            return None
        doors = [Address(str(ip), int(port), str(row["user"])) for ip, port in row["doors"]]
        return rented_hosts(doors, keys, machine.label, self._clock)

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """Autostop with the minutes that are left, rounded down, and the watchdog that any machine gets."""
        words: tuple[str, ...] = ()
        lodging = self._lodging(machine.label)
        if lodging.exists:
            lodging.note(deadline=iso(deadline))
            if not is_armed(lodging, deadline):
                rearm(lodging, self._server(lodging), deadline, self._clock)
            if CLOUDS[self.name].ends_itself:  # the hook runs on the first machine, and can end that one alone
                whose = "the pod's own key" if len(nodes_of(host)) == 1 else "the first pod's own key"
                words = (f"SkyPilot's autostop ({whose})",)
        if self._witness is not None:
            if lodging.exists:
                lodging.end()  # a gigabyte of processes: from here on nobody needs SkyPilot's word
            return (*words, *self._witness.arm(machine, host, deadline))
        from launcher.watchdog import watch

        for node in nodes_of(host):
            watch(node, deadline, None, self._clock)
        return (*words, "box timer stops all work", "reaper (CI or timer)")

    def start_together(self, machine: Machine, name: str, script: str) -> None:
        """By SkyPilot's own run: all machines or none, and where it fails on one it is ended on all.

        What it is asked restarts its autostop's clock, so the end is set anew before this returns.
        """
        lodging = self._lodging(machine.label)
        lodging.end()  # whoever asked before: what it asked for is not to come afterwards
        server = self._server(lodging)
        server.start()
        server.prove()
        held = lodging.facts()
        if held.get("together"):
            answer = server.send("cancel", ERRAND_S, cluster=lodging.label)
            if "error" in answer:
                raise ProviderError(f"SkyPilot could not end what it had started: {answer['words'][:300]}")
        lodging.note(together=name, minutes=None)
        task = {**held["task"], "name": name, "run": script}
        answer = server.send("exec", START_S, task=task, cluster=lodging.label, cloud=self.name,
                             region=str(held.get("region", "")))  # fmt: skip
        rearm(lodging, server, parse_iso(held["deadline"]), self._clock)
        if "error" in answer:
            raise ProviderError(f"SkyPilot did not start it: {answer['words'][:300]}")
        if self._witness is not None:
            lodging.end()

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """As the witness says it; else the catalog's rate times time."""
        if self._witness is not None:
            return self._witness.charged(machine, since, until)
        return by_rate(machine, since, until, self.traits.billing_step_s)

    def destroy(self, machine: Machine) -> None:
        """The witness's delete, once no launch goes on that could create anew; without a witness `sky down`.

        `sky down` deletes no more than the witness does and says less, and each second until the delete is billed.
        """
        lodging = self._lodging(machine.label)
        if self._witness is not None:
            if lodging.exists:
                lodging.end()
            self._witness.destroy(machine)
            return
        if not lodging.exists:
            raise ProviderError(
                f"SkyPilot's state of {machine.label} is not on this computer.",
                fix=f"Release it where it was rented, or by hand: {self.traits.console}",
            )
        server = self._server(lodging)
        server.start()
        answer = server.send("down", DOWN_S, cluster=machine.label)
        if "error" in answer and answer["error"] != "ClusterDoesNotExist":
            raise ProviderError(f"SkyPilot could not end the machine: {answer['words'][:300]}")

    @effect("provider.abandon")
    def abandon(self, label: str) -> bool:
        """End the lease's API server and whoever asks it: both outlive a launcher that was killed, and launch on."""
        lodging = self._lodging(label)
        if self._witness is None or not lodging.exists or not lodging.processes():
            return False  # where SkyPilot alone can be asked, its server is needed for that
        lodging.end()
        return True

    def may_have_created(self, label: str) -> bool:
        """Once SkyPilot was asked: its server launches, and its autostop ends, without any launcher."""
        held = self._lodging(label).facts()
        return bool(held.get("asked")) and not held.get("sold_out")

    def forget(self, label: str) -> None:
        """End the lease's API server with all that it started, and remove its home."""
        self._lodging(label).remove()
        if self._witness is not None:
            self._witness.forget(label)

    # -- a launch ---------------------------------------------------------------------------------------------------

    def _ready(self, lodging: Lodging, keys: LeaseKeys, nodes: int) -> None:
        """A server that is proven to upload nothing, and a witness that knows; raises CreateRefusedError."""
        server = self._server(lodging)
        try:
            lodging.prepare(keys)
            server.start()
            server.prove()
        except NotInForceError as error:
            raise CreateRefusedError(error.problem, fix=error.fix) from None
        except (NotAskedError, ProviderError, OSError) as error:
            raise CreateRefusedError(f"nothing was rented through SkyPilot: {error}") from None
        if self._witness is not None:
            self._witness.intend(lodging.label, nodes)

    def _launched(self, intent: Intent, lodging: Lodging) -> Machine:
        """Can leave something billing. Ask for it, once, and wait until it is seen."""
        server, task = self._server(lodging), self._task(intent)
        lodging.note(asked=True, usd_per_hour=str(intent.offer.usd_per_hour), task=task,
                     minutes=task["resources"]["autostop"]["idle_minutes"])  # fmt: skip
        answer = server.send("launch", LAUNCH_S, task=task, cluster=intent.label, cloud=self.name,
                             region=intent.offer.region)  # fmt: skip
        if "request" not in answer:
            raise self._failure(intent.label, answer)
        lodging.note(request=answer["request"], region=answer["region"])
        return self._created(intent.label, lodging, server)

    def _task(self, intent: Intent) -> dict[str, Any]:
        """What is launched: a machine and its end, nothing to run there and nothing to send."""
        cloud, offer = CLOUDS[self.name], intent.offer
        minutes = minutes_until(parse_iso(intent.deadline), self._clock, SET_UP_S)
        resources: dict[str, Any] = {
            "instance_type": _type_of(offer), "use_spot": False, "disk_size": intent.disk_gb,
            "autostop": {"idle_minutes": minutes, "down": True, "wait_for": "none"},
        }  # fmt: skip
        image = intent.image or _default_image(self.name)
        if image:
            resources["image_id"] = f"docker:{image}"
        task: dict[str, Any] = {"name": "bare", "resources": resources}
        if offer.nodes > 1:
            task["num_nodes"] = offer.nodes
        if cloud.ends_itself:
            task["config"] = {"hooks": [{"run": cloud.ends_itself, "events": ["down"], "timeout": 30}]}
        return task

    def _created(self, label: str, lodging: Lodging, server: Server) -> Machine:
        """Wait for the provider to show the machine, or for SkyPilot to give up."""
        request = str(lodging.facts()["request"])
        ends = self._clock.monotonic() + CREATE_S
        while True:
            state = server.state_of(request)  # before the look: what it created by then is seen by it
            seen = self._seen(label, state)
            if seen is not None:
                return seen
            if state in ("FAILED", "CANCELLED"):
                raise self._failure(label, server.send("outcome", ERRAND_S, request=request))
            if state is None and not server.answers():
                raise ProviderError("SkyPilot's API server has died: whether it had created the machine is unknown.")
            if self._clock.monotonic() > ends:
                raise ProviderError(f"no machine was seen within {CREATE_S:.0f} s of asking SkyPilot for it.")
            self._clock.sleep(LOOK_S)

    def _seen(self, label: str, state: str | None) -> Machine | None:
        """The machine, as soon as whoever is believed here shows it."""
        if self._witness is None and state != "SUCCEEDED":
            return None
        presence, machine = self.find(label)
        return machine if presence is Presence.PRESENT else None

    def _is_launching(self, lodging: Lodging) -> bool:
        """Whether a machine that is not there may still be created: the request goes on, or is on its way."""
        held = lodging.facts()
        if not held.get("asked") or held.get("up"):
            return False
        if not held.get("request"):
            return self._server(lodging).is_asked()
        return self._server(lodging).state_of(str(held["request"])) in GOES_ON

    def _failure(self, label: str, answer: dict[str, Any]) -> ProviderError:
        """What a failed launch was: refused for certain, sold out by the provider's word, or unknown."""
        kind, words = str(answer.get("error", "?")), " ".join(_COLOUR.sub("", str(answer.get("words", ""))).split())
        if kind in _BEFORE_ANY:
            return CreateRefusedError(f"SkyPilot refused to launch: {kind}: {words[:600]}")
        lodging = self._lodging(label)
        reasons = self._server(lodging).reasons(str(lodging.facts().get("request", "")))
        said = "; ".join(dict.fromkeys(reasons)) or f"{kind}: {words}"
        if reasons and kind == "ResourcesUnavailableError" and self.find(label)[0] is Presence.ABSENT:
            if all(_SOLD_OUT.search(reason) for reason in reasons):
                return SoldOutError(f"{self.name} is sold out of it: {said[:600]}")
            if all(_REFUSED.search(reason) for reason in reasons):
                return CreateRefusedError(f"{self.name} refused: {said[:600]}")
        return ProviderError(f"SkyPilot's launch failed: {said[:600]}")

    # -- whom to ask ------------------------------------------------------------------------------------------------

    def _lodging(self, label: str) -> Lodging:
        return Lodging(self._home, self.name, label, self._clock)

    def _server(self, lodging: Lodging) -> Server:
        return Server(lodging, self._clock)

    def _rows(self, label: str, refresh: bool = True) -> list[dict[str, Any]] | None:
        """SkyPilot's cluster of this lease, by default asked at the provider; None when it could not be asked."""
        lodging = self._lodging(label)
        if not lodging.exists:
            return None
        try:
            server = self._server(lodging)
            server.start()
            answer = server.send("status", ERRAND_S, cluster=label, refresh=refresh)
        except ProviderError:
            return None
        rows = answer.get("clusters")
        return rows if isinstance(rows, list) else None

    def _machine(self, label: str, row: dict[str, Any]) -> Machine:
        from launcher.money import Usd

        rate = Usd(str(self._lodging(label).facts().get("usd_per_hour", "0")))
        return Machine(label, label, rate, {"via": "skypilot", "launched_at": row.get("launched_at")})

    @staticmethod
    def _with(machine: Machine | None) -> Machine | None:
        return replace(machine, facts={**machine.facts, "via": "skypilot"}) if machine else None


def _witness(cloud: str, home: Home, clock: Clock) -> RunPodProvider | None:
    """The direct engine of the same cloud, whose word counts; None where there is none."""
    if cloud == "runpod":
        return RunPodProvider(home, clock)
    return None


def _type_of(offer: Offer) -> str:
    """The machine type for `errand.py`: SkyPilot's own name, or RunPod's offer, which has another for the same."""
    if offer.provider == "runpod" and "/" in offer.offer_id and not offer.offer_id.startswith("runpod/"):
        return f"{max(1, offer.count)} {offer.offer_id}"
    return offer.instance_type


def _default_image(cloud: str) -> str:
    return IMAGE if cloud == "runpod" else ""
