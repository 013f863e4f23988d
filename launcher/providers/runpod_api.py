"""RunPod's GraphQL, as runpod 1.10.1 and SkyPilot 0.14.1 call it: an account and its pods, a create, an end."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from launcher.clock import Clock
from launcher.money import ZERO, Usd
from launcher.offers import runpod as market
from launcher.offers.source import NotAskedError, text
from launcher.providers.account import Look as OneLook
from launcher.providers.asking import ANSWER_S, UNTOLD_USD_PER_HOUR, Line, moment_of, rate_of
from launcher.providers.base import CreateRefusedError, Intent, Machine, ProviderError, SoldOutError

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
ENDED = ("EXITED", "DEAD", "TERMINATED")  # of PodStatus: it will not come up by itself
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

# The start of any image: this lease's key alone; an ssh server, rsync and Python where the image has none, and that
# Python where an ssh session looks for it, whatever PATH the image sets.
_START = """
mkdir -p ~/.ssh && chmod 700 ~/.ssh && echo "$PUBLIC_KEY_OF_LEASE" >>~/.ssh/authorized_keys
chmod 600 ~/.ssh/authorized_keys
if ! command -v rsync || ! [ -x /usr/sbin/sshd ] || ! command -v python3; then
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y openssh-server rsync python3
fi
[ -x /usr/bin/python3 ] || [ -x /usr/local/bin/python3 ] || ln -s "$(command -v python3)" /usr/local/bin/python3
mkdir -p /run/sshd && ssh-keygen -A
service ssh start || /usr/sbin/sshd
sleep infinity
"""


@dataclass
class Look(OneLook):
    """One answer about the account, and what the account spends at that moment."""

    spend: Usd | None = None

    @property
    def explained(self) -> bool:
        """Whether the pods that are listed explain what the account spends now."""
        if not self.whole or self.spend is None:
            return False
        running = [m for m in self.listed.values() if m.facts.get("status") == "RUNNING"]
        known = sum((m.usd_per_hour + Usd(m.facts["disk_usd_per_hour"]) for m in running), ZERO)
        return self.spend - known < UNEXPLAINED_USD_PER_HOUR


class Api:
    """One account's interface."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def look(self, refs: list[str]) -> Look:
        """Account, list of pods and single pods in one answer, so that they are of one moment and one account."""
        exact = " ".join(f"p{n}: pod(input: {{podId: {json.dumps(ref)}}}) {{ {_POD} }}" for n, ref in enumerate(refs))
        data = self._graphql(f"query {{ myself {{ id currentSpendPerHr pods {{ {_POD} }} }} {exact} }}")
        me = data.get("myself")
        account = text(me.get("id")) if isinstance(me, dict) else ""
        if not isinstance(me, dict) or not account:
            raise ProviderError("RunPod did not say whose account it is.")
        look = Look(account, spend=rate_of(me.get("currentSpendPerHr")))
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

    def create(self, intent: Intent, account: str, seconds: float) -> Machine:
        """Ask for a pod of exactly the offer's GPU type and cloud; raises ProviderError where there may be one."""
        gpu, _, cloud = intent.offer.offer_id.rpartition("/")
        if not gpu or cloud not in _CLOUDS:
            raise CreateRefusedError(f"{intent.offer.offer_id!r} is not an offer of RunPod's.")
        asked = f"podFindAndDeployOnDemand(input: {_written(_order(intent, gpu, cloud))}) {{ {_POD} }}"
        machine = _machine(self._graphql(f"mutation {{ {asked} }}", seconds).get("podFindAndDeployOnDemand"), account)
        if machine is None:
            raise ProviderError("RunPod's answer to the create names no pod: there may be one.")
        return machine

    def terminate(self, ref: str) -> bool:
        """Ask for a pod's end; False where RunPod does not know it. Raises ProviderError where it did not accept."""
        try:
            self._graphql(f"mutation {{ podTerminate(input: {{podId: {json.dumps(ref)}}}) }}")
        except ProviderError as error:
            if _NOT_FOUND.search(str(error).lower()):
                return False
            raise
        return True

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


def label_of(name: str) -> str:
    """The label in a pod's name: what SkyPilot has made of one of ours is undone, any other name is itself."""
    bare = _OF_SKYPILOT.sub("", name)
    label = re.sub(r"(?<=-\d{8})t(?=\d{6}$)", "T", bare)
    return label if bare.startswith("pl-") and carries(name, label) else name


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
