"""RunPod rented directly, over GraphQL as runpod 1.10.1 and SkyPilot 0.14.1 call it.

What proves that a pod is gone: an answer that names the account it was rented in, and in which the pod's own id is
unknown. Where no id is known (a create that never answered), the list of pods must be whole, must not show the label,
and must explain what the account spends at that moment (`currentSpendPerHr`, of the same answer): an empty or a
shortened list does not. Serverless workers and volumes spend too, and then such a lease stays unproven.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from launcher.clock import Clock
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.rented import rented_host
from launcher.money import ZERO, Usd
from launcher.offers import runpod as market
from launcher.offers.source import NotAskedError, text
from launcher.providers.asking import ANSWER_S, CREATE_S, UNTOLD_USD_PER_HOUR, Line, moment_of, rate_of
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
from launcher.providers.known import Known
from launcher.providers.traits import Traits, traits_of_provider

#: RunPod's own image of PyTorch on CUDA 12.8, Python 3.11 (hub.docker.com/r/runpod/pytorch): kept on many of its
#: hosts. The recipes bring their own torch; of the image they use the driver's libraries, Python and ssh.
IMAGE = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
VCPUS_PER_GPU = 4  # as SkyPilot 0.14.1 asks for (sky/provision/runpod/utils.py): the recipes decode audio beside it
#: Drivers that run the locked torch (doctor.CUDA_OF_TORCH); the input's field is in runpod 1.10.1's mutation.
CUDA_VERSIONS = ("13.0", "13.1", "13.2")

#: Spending that no pod explains, below what RunPod's cheapest GPU costs an hour: volumes, not a hidden pod.
UNEXPLAINED_USD_PER_HOUR = Usd("0.05")
MONTH_HOURS = 730  # docs.runpod.io/pods/pricing: prices of storage are per GB and month

_PORTS = "runtime { ports { ip isIpPublic privatePort publicPort type } }"
# Fields of runpod 1.10.1's QUERY_POD; `createdAt` and `currentSpendPerHr` are in RunPod's published schema
# (graphql-spec.runpod.io, types Pod and User). The environment is not asked for: it holds secrets.
_POD = f"id name costPerHr createdAt desiredStatus podType gpuCount containerDiskInGb {_PORTS}"
_ENDED = ("EXITED", "DEAD", "TERMINATED")  # of PodStatus: it will not come up by itself
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLOUDS = {"secure": "SECURE", "community": "COMMUNITY"}
#: What SkyPilot adds to a cluster's name: its user's hash (8 hex digits) and the node's part.
_OF_SKYPILOT = re.compile(r"-[0-9a-f]{8}-(head|worker)$")

_SOLD_OUT = re.compile(r"no longer any instances|no instances (are )?(currently )?available|not have the resources")
_REFUSED = re.compile(
    r"unauthori[sz]ed|forbidden|insufficient|balance|spend(ing)? limit|(not enough|add) (funds|credits?)"
)
_INVALID = re.compile(r"cannot query field|syntax error|is not defined by type|graphql_validation_failed")
_NOT_FOUND = re.compile(r"pod not found|no pod|does not exist")

_OTHER_KEY = "Set RUNPOD_API_KEY to the key that it was rented with."

# The start of any image: this lease's key alone, and an ssh server and rsync where the image has none.
_START = """
mkdir -p ~/.ssh && chmod 700 ~/.ssh && echo "$PUBLIC_KEY_OF_LEASE" >>~/.ssh/authorized_keys
chmod 600 ~/.ssh/authorized_keys
if ! command -v rsync || ! [ -x /usr/sbin/sshd ] || ! command -v python3; then
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y openssh-server rsync python3
fi
mkdir -p /run/sshd && ssh-keygen -A
service ssh start || /usr/sbin/sshd
sleep infinity
"""


def carries(name: str, label: str) -> bool:
    """Whether a pod of this name is the lease's: the label itself, or what SkyPilot makes of it.

    SkyPilot 0.14.1 writes a name in small letters, `.` and `_` as `-`, and adds its user's hash and the node's part
    (sky/utils/common_utils.py: make_cluster_name_on_cloud, sky/provision/runpod/utils.py: launch); RunPod's names
    may have 120 characters, so that a label is never shortened.
    """
    if name == label:
        return True
    cluster, found = re.sub(r"[._]", "-", label).lower(), _OF_SKYPILOT.search(name)
    return found is not None and name[: found.start()] == cluster


@dataclass
class _Look:
    """One answer about the account: who, what it lists, and what was asked for by id."""

    account: str
    listed: dict[str, Machine] = field(default_factory=dict)
    exact: dict[str, Machine | None] = field(default_factory=dict)
    whole: bool = True  # every row was understood
    spend: Usd | None = None

    @property
    def machines(self) -> dict[str, Machine]:
        return self.listed | {ref: machine for ref, machine in self.exact.items() if machine}

    @property
    def consistent(self) -> bool:
        """Whether all that exists by its id is listed."""
        return self.whole and all(ref in self.listed for ref, machine in self.exact.items() if machine)

    @property
    def explained(self) -> bool:
        """Whether the pods that are listed explain what the account spends now."""
        if not self.whole or self.spend is None:
            return False
        running = [m for m in self.listed.values() if m.facts.get("status") == "RUNNING"]
        known = sum((m.usd_per_hour + Usd(m.facts["disk_usd_per_hour"]) for m in running), ZERO)
        return self.spend - known < UNEXPLAINED_USD_PER_HOUR


class RunPodProvider:
    """Pods of one account, one for each lease. Of the account's key no pod is told; each has its own from RunPod."""

    name = "runpod"

    def __init__(self, home: Home, clock: Clock) -> None:
        traits = traits_of_provider(self.name, "direct")
        assert traits
        self.traits: Traits = traits
        self.create_s = CREATE_S  # how long a create is waited for
        self._clock = clock
        self._known = Known(home, self.name)
        self._deleted: set[str] = set()  # ids whose delete RunPod has accepted

    def unusable(self) -> str | None:
        """Without a key; whether RunPod accepts it, only RunPod can say."""
        try:
            market.account_key()
        except NotAskedError as error:
            return str(error)
        return None

    def create(self, intent: Intent) -> Machine:
        """A pod of exactly the offer's GPU type and cloud, on demand, named by the label; see the contract."""
        gpu, _, cloud = intent.offer.offer_id.rpartition("/")
        if not gpu or cloud not in _CLOUDS:
            raise CreateRefusedError(f"{intent.offer.offer_id!r} is not an offer of RunPod's.")
        if intent.keys is None:
            raise CreateRefusedError("without keys of its own nobody could enter the pod: it was not asked for.")
        account = self.intend(intent.label)
        asked = f"podFindAndDeployOnDemand(input: {_written(_order(intent, gpu, cloud))}) {{ {_POD} }}"
        try:
            data = self._graphql(f"mutation {{ {asked} }}", self.create_s)
        except CreateRefusedError:
            self._known.forget(intent.label)
            raise
        machine = _machine(data.get("podFindAndDeployOnDemand"), account)
        if machine is None:
            raise ProviderError("RunPod's answer to the create names no pod: there may be one.")
        self._known.learn(intent.label, ref=machine.ref)
        return replace(machine, label=intent.label)

    def intend(self, label: str) -> str:
        """Note whose account a lease's pod will be in, before a create by whatever engine; the account.

        Without it, that nothing was created is never proven. Raises CreateRefusedError where RunPod does not answer.
        """
        account = self._account()
        self._known.asked(label, self._clock.now(), account=account)
        return account

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """By its id where one is known, else by the name; see this module's words for what is proof."""
        refs = self._known.refs(label)
        try:
            look = self._look(refs)
        except ProviderError:
            return Presence.UNKNOWN, None
        found = [m for ref, m in look.machines.items() if ref in refs or carries(m.label, label)]
        if found:
            machine = replace(found[0], label=label)
            self._known.learn(label, ref=machine.ref, account=look.account)
            return Presence.PRESENT, machine
        if not self._known.is_account_of(label, look.account):
            return Presence.UNKNOWN, None  # another account's truth, for all that is known here
        if refs:
            unseen = self._is_young(label) and not set(refs) <= self._deleted
            return (Presence.UNKNOWN if unseen else Presence.ABSENT), None
        return (Presence.ABSENT if look.explained else Presence.UNKNOWN), None

    def listing(self) -> Listing:
        """The account's pods; complete when it is the account of our leases, and what it spends or our ids agree."""
        labels = self._known.labels()
        held = {ref: label for label in labels for ref in self._known.refs(label)}
        try:
            look = self._look(sorted(held))
        except ProviderError:
            return Listing((), complete=False)
        ours = self._known.is_account_of_all(look.account)
        gone = any(machine is None for machine in look.exact.values())
        machines = tuple(replace(m, label=held.get(ref) or self._label_of(m)) for ref, m in look.machines.items())
        return Listing(machines, complete=ours and look.consistent and (look.explained or gone))

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """The pod's public port 22; None while RunPod does not tell it."""
        now = self._now(machine)
        if now is not None and now.facts.get("status") in _ENDED:
            raise MachineFailedError(f"RunPod says that the pod has ended ({now.facts['status']}).")
        address = (now or machine).facts.get("ssh")
        try:
            found = Address(str(address[0]), int(address[1])) if address else None
        except (ValueError, TypeError, IndexError):
            return None
        return rented_host(found, keys, machine.label, self._clock) if found else None

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """The pod ends itself: podTerminate with the key that RunPod gave to this pod alone (RUNPOD_API_KEY)."""
        from launcher.watchdog import Request, watch

        body = {"query": 'mutation { podTerminate(input: {podId: "${RUNPOD_POD_ID}"}) }'}
        call = Request("POST", "${RUNPOD_API_BASE_URL:-https://api.runpod.io}/graphql", body=json.dumps(body),
                       headers={"Content-Type": "application/json", "Authorization": "Bearer ${RUNPOD_API_KEY}",
                                "User-Agent": "parakeet-launcher"})  # fmt: skip
        watch(host, deadline, call, self._clock)
        return ("box ends itself (its own key; that RunPod grants it this is documented, not verified)",
                "reaper (CI or timer)")  # fmt: skip

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Rate and disk by the second, as docs.runpod.io/accounts-billing/billing says."""
        return by_rate(machine, since, until, self.traits.billing_step_s)

    def destroy(self, machine: Machine) -> None:
        """podTerminate, also of any other pod that carries the label; that one is unknown there is no proof."""
        self._known.meet(machine)
        doomed = [machine.ref]
        try:
            look = self._look(doomed)
        except ProviderError:
            look = None
        ours = look is None or self._known.is_account_of(machine.label, look.account)
        if look is not None and ours:
            doomed += [r for r, m in look.listed.items() if r != machine.ref and carries(m.label, machine.label)]
        for ref in doomed:
            try:
                self._graphql(f"mutation {{ podTerminate(input: {{podId: {json.dumps(ref)}}}) }}")
                self._deleted.add(ref)
            except ProviderError as error:
                if not _NOT_FOUND.search(str(error).lower()):
                    raise
                if not ours:
                    raise ProviderError("the key is of another account than the pod.", fix=_OTHER_KEY) from None

    def forget(self, label: str) -> None:
        """Remove what is noted of the lease."""
        self._known.forget(label)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _account(self) -> str:
        """Whose key it is, asked before anything can be created by it; raises CreateRefusedError."""
        try:
            return self._look([]).account
        except ProviderError as error:
            raise CreateRefusedError(f"{error.problem} No pod was asked for.", fix=error.fix) from None

    def _now(self, machine: Machine) -> Machine | None:
        """What RunPod says of a pod now, None where it says nothing; raises MachineFailedError when it is gone."""
        self._known.meet(machine)
        try:
            look = self._look([machine.ref])
        except ProviderError:
            return None
        now = look.exact[machine.ref]
        ours = self._known.is_account_of(machine.label, look.account)
        if now is None and ours and not self._is_young(machine.label):
            raise MachineFailedError("RunPod does not know the pod any more.")
        return now

    def _is_young(self, label: str) -> bool:
        return self._known.is_young(label, self._clock.now(), self.traits.listing_lag_s)

    def _label_of(self, machine: Machine) -> str:
        """The label of a pod that is not known by its id: of our own leases, else its name, as we wrote it."""
        known = next((one for one in self._known.labels() if carries(machine.label, one)), None)
        bare = _OF_SKYPILOT.sub("", machine.label)
        restored = re.sub(r"(?<=-\d{8})t(?=\d{6}$)", "T", bare) if bare != machine.label else bare
        return known or (restored if carries(machine.label, restored) else machine.label)

    def _look(self, refs: list[str]) -> _Look:
        """Account, list of pods and single pods in one answer, so that they are of one moment and one account."""
        exact = " ".join(f"p{n}: pod(input: {{podId: {json.dumps(ref)}}}) {{ {_POD} }}" for n, ref in enumerate(refs))
        data = self._graphql(f"query {{ myself {{ id currentSpendPerHr pods {{ {_POD} }} }} {exact} }}")
        me = data.get("myself")
        account = text(me.get("id")) if isinstance(me, dict) else ""
        if not isinstance(me, dict) or not account:
            raise ProviderError("RunPod did not say whose account it is.")
        look = _Look(account, spend=rate_of(me.get("currentSpendPerHr")))
        rows = me.get("pods")
        look.whole = isinstance(rows, list)
        for row in rows if isinstance(rows, list) else []:
            machine = _machine(row, account)
            look.whole = look.whole and machine is not None and machine.ref not in look.listed
            if machine is not None:
                look.listed[machine.ref] = machine
        for number, ref in enumerate(refs):
            if f"p{number}" not in data:
                raise ProviderError("RunPod left a question unanswered.")
            row = data[f"p{number}"]
            look.exact[ref] = _machine(row, account)
            if row is not None and (look.exact[ref] is None or row["id"] != ref):
                raise ProviderError("RunPod answered about another pod than the one asked for.")
        return look

    def _graphql(self, query: str, seconds: float = ANSWER_S) -> dict[str, Any]:
        """The data of an answer. Raises SoldOutError and CreateRefusedError for what was refused by RunPod's word,

        and ProviderError for all that leaves it open what was done.
        """
        try:
            line = Line("RunPod", market.account_key(), self._clock)
        except NotAskedError as error:
            raise CreateRefusedError(f"RunPod cannot be asked: {error}.") from None
        said = line.ask("POST", market.address(), {"query": query}, seconds=seconds)
        held = said.body if isinstance(said.body, dict) else {}
        faults = held.get("errors")
        if said.status in (401, 403):
            raise line.error("does not accept our key", CreateRefusedError, fix="Set RUNPOD_API_KEY to a valid key.")
        if faults:
            raise _refusal(line, faults, said.status)
        data = held.get("data")
        if not said.good or not isinstance(data, dict):
            raise line.error(f"answered HTTP {said.status} without data")
        return data


def _refusal(line: Line, faults: Any, status: int) -> ProviderError:
    """The error that GraphQL's errors are: what was refused for certain, or nobody knows."""
    first = faults[0] if isinstance(faults, list) and faults else faults
    message = first.get("message") if isinstance(first, dict) else first
    words = line.words(message)
    low = str(message).lower()
    if _SOLD_OUT.search(low):
        return line.error(f"is sold out of it: {words}", SoldOutError)
    if _REFUSED.search(low) or _INVALID.search(low) or status == 400:
        return line.error(f"refused: {words}", CreateRefusedError)
    return line.error(f"answered with an error: {words}")


def _order(intent: Intent, gpu: str, cloud: str) -> dict[str, Any]:
    """The create's input: names and types as in runpod 1.10.1's generate_pod_deployment_mutation."""
    assert intent.keys
    count, key = max(1, intent.offer.count), intent.keys.public
    start = base64.b64encode(_START.encode()).decode()
    return {
        "name": intent.label, "imageName": intent.image or IMAGE, "cloudType": _Word(_CLOUDS[cloud]),
        "gpuTypeId": gpu, "gpuCount": count, "containerDiskInGb": intent.disk_gb, "volumeInGb": 0,
        "minVcpuCount": VCPUS_PER_GPU * count, "supportPublicIp": True, "startSsh": False, "ports": "22/tcp",
        "allowedCudaVersions": list(CUDA_VERSIONS),
        "dockerArgs": f"bash -c 'echo {start} | base64 -d | bash'",
        "env": [{"key": name, "value": key} for name in ("PUBLIC_KEY", "PUBLIC_KEY_OF_LEASE")],
    }  # fmt: skip


class _Word(str):
    """A name of GraphQL's, which is written without quotes."""


def _written(value: Any) -> str:
    """A value as GraphQL writes it; its texts are escaped as JSON's are."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(held)}" for name, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(held) for held in value) + "]"
    return str(value) if isinstance(value, _Word) else json.dumps(value)


def _machine(row: Any, account: str) -> Machine | None:
    """A pod's row; None where it is none. A rate that is not told is one that no approval allows."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not _ID.fullmatch(row["id"]):
        return None
    name, rate = row.get("name"), rate_of(row.get("costPerHr"))
    if name is not None and not isinstance(name, str):
        return None
    disk_gb = row.get("containerDiskInGb")
    held_gb = disk_gb if isinstance(disk_gb, int) and disk_gb > 0 else 0
    disk = Decimal(market.DISK_USD_PER_GB_MONTH) * held_gb / MONTH_HOURS
    facts = {
        "account": account, "status": text(row.get("desiredStatus")), "disk_usd_per_hour": f"{disk:.9f}",
        "billed_from": moment_of(row.get("createdAt")), "ssh": _door(row.get("runtime")),
        "rate_untold": True if rate is None else None,
    }  # fmt: skip
    return Machine(row["id"], name or "", UNTOLD_USD_PER_HOUR if rate is None else rate,
                   {name: held for name, held in facts.items() if held is not None})  # fmt: skip


def _door(runtime: Any) -> list[str | int] | None:
    """Address and port of the pod's ssh server, once it has them."""
    ports = runtime.get("ports") if isinstance(runtime, dict) else None
    for port in ports if isinstance(ports, list) else []:
        if isinstance(port, dict) and port.get("privatePort") == 22 and port.get("isIpPublic") is True:
            ip, number = port.get("ip"), port.get("publicPort")
            if isinstance(ip, str) and isinstance(number, int) and not isinstance(number, bool):
                return [ip, number]
    return None
