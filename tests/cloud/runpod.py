"""RunPod's interface: GraphQL as the runpod package 1.10.1 and SkyPilot 0.14.1 call it, and REST's /v1/pods.

Fields, inputs and names of operations: runpod/api/{queries,mutations}, sky/provision/runpod/{utils,instance}.py and
sky/catalog/data_fetchers/fetch_runpod.py; createdAt and currentSpendPerHr: RunPod's published schema
(graphql-spec.runpod.io). What a pod does on its start: runpod/containers, start.sh (PUBLIC_KEY, and
the environment in /etc/rp_environment). Messages of errors: as those packages' issues quote them.
"""

from __future__ import annotations

import shlex
from decimal import Decimal
from typing import Any

from tests.cloud.cloud import Cloud, Machine, Order, iso
from tests.cloud.graphql import Field, QueryError, parse, pick
from tests.cloud.reply import Call, Reply, after_create, listed, of_list, struck

SOLD_OUT = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
OPERATIONS = {
    "podFindAndDeployOnDemand": "create", "podRentInterruptable": "create", "deployCpuPod": "create",
    "podTerminate": "delete", "podStop": "stop", "podResume": "start", "pod": "get", "myself": "list",
    "gpuTypes": "search",
}  # fmt: skip
# What an image of RunPod does on its start, when the create call names no command of its own.
START = r"""
env | grep -E '^[A-Z_][A-Z0-9_]*=' | grep -v PUBLIC_KEY | sed -E 's/^([^=]*)=(.*)$/export \1="\2"/' \
  >/etc/rp_environment
echo 'source /etc/rp_environment' >>~/.bashrc
if [ -n "$PUBLIC_KEY" ]; then
  mkdir -p ~/.ssh; chmod 700 ~/.ssh; echo "$PUBLIC_KEY" >>~/.ssh/authorized_keys; chmod 600 ~/.ssh/authorized_keys
  service ssh start
fi
sleep infinity
"""


class RunPod:
    """One account at RunPod."""

    name = "runpod"

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.terms = cloud.catalog["runpod"]

    # -- the door ---------------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> Reply | None:
        if call.path == "/graphql" and call.method == "POST":
            return self._graphql(call)
        if call.path.startswith("/v1/pods"):
            return self._rest(call)
        return None

    def _owner(self, token: str) -> Machine | bool:
        """True for the account, a machine for its own key, False for a stranger."""
        if token == self.cloud.accounts["runpod"]:
            return True
        return next((m for m in self.cloud.machines.values() if m.key and m.key == token), False)

    def _graphql(self, call: Call) -> Reply:
        asked = call.body if isinstance(call.body, dict) else {}
        try:
            _, fields = parse(str(asked.get("query", "")), asked.get("variables") or {})
        except QueryError as error:
            return Reply({"errors": [{"message": str(error)}]}, 400)
        token = call.token or call.query.get("api_key", "")
        data: dict[str, Any] = {}
        reply = Reply({"data": data})
        for field in fields:
            operation = OPERATIONS.get(field.name, "other")
            owner = self._owner(token)
            if owner is False and field.name != "gpuTypes":  # prices are public
                return Reply({"errors": [{"message": "Unauthorized"}]}, 401)
            failed = struck(self.cloud, self.name, operation)
            if failed:
                return failed
            fault = of_list(self.cloud, self.name) if self._lists(field) else None
            try:
                if isinstance(owner, Machine):
                    self._may(owner, field)
                by = "itself" if isinstance(owner, Machine) else "account"
                data[field.alias] = self._do(field, fault, by)
            except QueryError as error:
                return Reply({"errors": [{"message": str(error)}], "data": {field.alias: None}})
            reply.cut = reply.cut or bool(fault and fault.fault == "malformed_list")
            if operation == "create":
                reply = after_create(self.cloud, self.name, reply)
        return reply

    @staticmethod
    def _lists(field: Field) -> bool:
        return field.name == "myself" and any(part.name == "pods" for part in field.fields)

    def _may(self, machine: Machine, field: Field) -> None:
        """What a pod's own key may do: end, stop or see that pod."""
        asked = field.arguments.get("input") or {}
        allowed = field.name in ("podTerminate", "podStop", "pod") and asked.get("podId") == machine.id
        if not (allowed and self.terms["self_destroy"]):
            raise QueryError("Unauthorized: this key is scoped to its pod")

    def _do(self, field: Field, fault: Any, by: str) -> Any:
        asked = field.arguments.get("input") or {}
        if field.name == "gpuTypes":
            return pick([row for row in self._types() if asked.get("id") in (None, row["id"])], field.fields)
        if field.name == "myself":
            return pick(self._myself(fault), field.fields)
        if field.name in ("podFindAndDeployOnDemand", "podRentInterruptable"):
            return pick(self._pod(self._create(asked)), field.fields)
        if field.name == "pod":
            machine = self._find(asked.get("podId"))
            return pick(self._pod(machine), field.fields) if machine else None
        if field.name == "podTerminate":
            self._end(self._known(asked, "terminate"), by)
            return None
        if field.name == "podStop":
            machine = self._known(asked, "stop")
            self.cloud.stop(machine)
            return pick(self._pod(machine), field.fields)
        if field.name == "updateUserSettings":
            key = asked.get("pubKey")
            self.cloud.ssh_keys["runpod"] = key.strip().splitlines() if key else []
            return pick(self._myself(None), field.fields)
        raise QueryError(f'Cannot query field "{field.name}" on this schema (the simulated RunPod does not have it).')

    # -- what there is ----------------------------------------------------------------------------------------------

    def _types(self) -> list[dict[str, Any]]:
        return [self._type(gpu) for gpu in self.terms["gpus"]]

    def _type(self, gpu: dict[str, Any]) -> dict[str, Any]:
        def lowest(**arguments: Any) -> dict[str, Any]:
            asked = arguments.get("input") or {}
            secure = asked.get("secureCloud")
            clouds = {True: ["SECURE"], False: ["COMMUNITY"], None: ["COMMUNITY", "SECURE"]}[secure]
            prices = [float(gpu[f"{c.lower()}_usd"]) for c in clouds if not self._sold_out(gpu["id"], c)]
            price = min(prices) * int(asked.get("gpuCount") or 1) if prices else None
            return {
                "minimumBidPrice": price and round(price / 2, 3), "uninterruptablePrice": price,
                "stockStatus": "High" if prices else None, "countryCode": gpu["region"] if prices else None,
                "minVcpu": 8, "minMemory": 32, "maxUnreservedGpuCount": 4 if prices else 0,
                "availableGpuCounts": [1, 2, 4] if prices else [],
            }  # fmt: skip

        secure, community = float(gpu["secure_usd"]), float(gpu["community_usd"])
        return {
            "id": gpu["id"], "displayName": gpu["name"], "manufacturer": "Nvidia", "memoryInGb": gpu["vram_gb"],
            "cudaCores": 0, "maxGpuCount": 8, "secureCloud": True, "communityCloud": True, "securePrice": secure,
            "communityPrice": community, "secureSpotPrice": secure / 2, "communitySpotPrice": community / 2,
            "oneWeekPrice": None, "oneMonthPrice": None, "threeMonthPrice": None, "lowestPrice": lowest,
        }  # fmt: skip

    def _sold_out(self, gpu: str, cloud_type: str) -> bool:
        standing = self.cloud.script.standing(self.name, "sold_out")
        return any(f.params["offer"] in (None, gpu, f"{gpu}/{cloud_type.lower()}") for f in standing)

    def _find(self, name: Any) -> Machine | None:
        return self.cloud.find(self.name, str(name))

    def _known(self, asked: dict[str, Any], verb: str) -> Machine:
        machine = self._find(asked.get("podId"))
        if not machine:
            raise QueryError(f"pod not found to {verb}")
        return machine

    def _end(self, machine: Machine, by: str) -> None:
        self.cloud.destroy(machine, by=by)

    def _myself(self, fault: Any) -> dict[str, Any]:
        pods = [self._pod(machine) for machine in self.cloud.seen(self.name)]
        stranger = self._pod(None)
        strange = fault is not None and fault.fault == "wrong_account"  # then all of the answer is another's
        ours = [m.meter.hourly for m in self.cloud.machines.values() if m.order.provider == self.name]
        spends = stranger["costPerHr"] if strange else float(sum(ours, Decimal(0)))
        account = "strang" if strange else self.cloud.accounts["runpod"][-6:]
        return {
            "id": f"user_{account}", "email": "someone@example.com",
            "pubKey": "\n".join(self.cloud.ssh_keys["runpod"]), "networkVolumes": [], "podTemplates": [],
            "endpoints": [], "clientBalance": float(self.terms["balance_usd"]), "currentSpendPerHr": spends,
            "pods": listed(pods, fault, stranger),
        }  # fmt: skip

    # -- a pod ------------------------------------------------------------------------------------------------------

    def _create(self, asked: dict[str, Any]) -> Machine:
        gpu = next((one for one in self.terms["gpus"] if one["id"] == asked.get("gpuTypeId")), None)
        if not gpu:
            raise QueryError(SOLD_OUT)
        clouds = (
            [asked["cloudType"]] if asked.get("cloudType") in ("SECURE", "COMMUNITY") else ["COMMUNITY", "SECURE"]
        )
        # "1x_L40S_SECURE" and an offer's "NVIDIA L40S/secure" name the same thing; a fault names it the second way.
        for chosen in clouds:
            offer = f"{gpu['id']}/{chosen.lower()}"
            fault = self.cloud.script.take(self.name, "create", "sold_out", offer=offer) or self.cloud.script.take(
                self.name, "create", "sold_out", offer=gpu["id"]
            )
            if not fault:
                break
        else:
            self.cloud.note("sold_out", provider=self.name, offer=offer)
            raise QueryError(SOLD_OUT)
        count = int(asked.get("gpuCount") or 1)
        name, key = self.cloud.token(14), f"rpa_{self.cloud.token(40).upper()}"
        env = {str(row["key"]): str(row["value"]) for row in asked.get("env") or []}
        given = dict(env)
        keys = [*self.cloud.ssh_keys["runpod"], *filter(None, [env.get("PUBLIC_KEY")])]
        env |= {
            "RUNPOD_POD_ID": name, "RUNPOD_API_KEY": key, "RUNPOD_GPU_COUNT": str(count),
            "RUNPOD_POD_HOSTNAME": f"{name}-64410be1", "RUNPOD_DC_ID": asked.get("dataCenterId") or "US-KS-2",
            "RUNPOD_API_BASE_URL": self.cloud.url,  # the one thing that no pod has: where the simulation is
        }  # fmt: skip
        if keys:
            env["PUBLIC_KEY"] = "\n".join(keys)
        command = shlex.split(asked.get("dockerArgs") or "") or ["bash", "-c", START]
        order = Order(
            self.name, str(asked.get("name") or name), offer, Decimal(gpu[f"{chosen.lower()}_usd"]) * count,
            float(asked.get("containerDiskInGb") or 10) + float(asked.get("volumeInGb") or 0),
            Decimal(self.terms["disk_usd_gb_month"]), env, command,
            facts={"gpu": gpu, "count": count, "asked": asked, "env": given},
        )  # fmt: skip
        machine = self.cloud.create(order, name, key)
        machine.order.env |= {"RUNPOD_PUBLIC_IP": machine.box.ip, "RUNPOD_TCP_PORT_22": str(machine.box.port)}
        return machine

    def _pod(self, machine: Machine | None) -> dict[str, Any]:
        """A pod's row; without a machine, that of a pod of somebody else."""
        if machine is None:
            return dict.fromkeys(_POD, None) | {
                "id": "strangers0pod00", "name": "not-yours", "desiredStatus": "RUNNING", "costPerHr": 0.79,
                "gpuCount": 1, "env": [], "imageName": "runpod/base", "ports": "22/tcp", "podType": "RESERVED",
                "runtime": None, "machine": {"gpuDisplayName": "L40S", "podHostId": ""},
            }  # fmt: skip
        asked, gpu = machine.order.facts["asked"], machine.order.facts["gpu"]
        runs = machine.state == "running"
        return {
            "id": machine.id, "name": machine.order.label, "containerDiskInGb": asked.get("containerDiskInGb"),
            "containerRegistryAuthId": None, "costPerHr": float(machine.usd_per_hour),
            "createdAt": iso(machine.created),
            "adjustedCostPerHr": float(machine.usd_per_hour),
            # A pod that boots is RUNNING without a runtime; only what its owner stopped is EXITED.
            "desiredStatus": "EXITED" if machine.state == "stopped" else "RUNNING",
            "dockerArgs": asked.get("dockerArgs") or "", "dockerId": None,
            "env": [f"{key}={value}" for key, value in machine.order.facts["env"].items()],
            "gpuCount": machine.order.facts["count"], "imageName": asked.get("imageName"),
            "lastStatusChange": "Rented by User", "machineId": f"m{machine.box.number}", "memoryInGb": 32,
            "podType": "RESERVED", "port": None, "ports": asked.get("ports"), "templateId": asked.get("templateId"),
            "uptimeSeconds": int(self.cloud.now() - machine.started) if machine.started and runs else 0,
            "vcpuCount": 2, "volumeInGb": asked.get("volumeInGb"), "volumeMountPath": asked.get("volumeMountPath"),
            "runtime": {"ports": self._ports(machine), "uptimeInSeconds": 0, "gpus": []} if runs else None,
            "machine": {"gpuDisplayName": gpu["name"], "podHostId": f"{machine.id}-64410be1"},
        }  # fmt: skip

    @staticmethod
    def _ports(machine: Machine) -> list[dict[str, Any]]:
        """What is open: 22 to the world under the number that RunPod chose, HTTP ports through its proxy."""
        found = []
        for port in filter(None, str(machine.order.facts["asked"].get("ports") or "").split(",")):
            number, _, kind = port.partition("/")
            public = kind == "tcp"
            found.append({
                "ip": machine.box.ip, "isIpPublic": public, "privatePort": int(number), "type": kind,
                "publicPort": machine.box.port if number == "22" else int(number),
            })  # fmt: skip
        return found

    # -- REST -------------------------------------------------------------------------------------------------------

    def _rest(self, call: Call) -> Reply:
        """docs.runpod.io/api-reference/pods: list, create, get, delete."""
        name = call.path.removeprefix("/v1/pods").strip("/")
        operation = {"GET": "get" if name else "list", "POST": "create", "DELETE": "delete"}.get(call.method, "other")
        owner = self._owner(call.token)
        own = isinstance(owner, Machine) and operation in ("get", "delete") and owner.id == name
        if not (owner is True or (own and self.terms["self_destroy"])):
            return Reply({"error": "unauthorized"}, 401)
        failed = struck(self.cloud, self.name, operation)
        if failed:
            return failed
        if operation == "list":
            fault = of_list(self.cloud, self.name)
            rows = [_as_rest(self._pod(machine)) for machine in self.cloud.seen(self.name)]
            return Reply(
                listed(rows, fault, _as_rest(self._pod(None))), cut=bool(fault and fault.fault == "malformed_list")
            )
        if operation == "create":
            try:
                machine = self._create(_of_rest(call.body or {}))
            except QueryError as error:
                return Reply({"error": str(error)}, 500)
            return after_create(self.cloud, self.name, Reply(_as_rest(self._pod(machine)), 201))
        machine_ = self._find(name)
        if not machine_ or operation == "other":
            return Reply({"error": "pod not found"}, 404)
        if operation == "delete":
            self._end(machine_, "itself" if own else "account")
            return Reply("", 204)
        return Reply(_as_rest(self._pod(machine_)))


_POD = (
    "id", "name", "containerDiskInGb", "containerRegistryAuthId", "costPerHr", "createdAt", "adjustedCostPerHr",
    "desiredStatus",
    "dockerArgs", "dockerId", "env", "gpuCount", "imageName", "lastStatusChange", "machineId", "memoryInGb",
    "podType", "port", "ports", "templateId", "uptimeSeconds",
    "vcpuCount", "volumeInGb", "volumeMountPath", "runtime",
    "machine",
)  # fmt: skip


def _as_rest(pod: dict[str, Any]) -> dict[str, Any]:
    """The same pod in REST's words."""
    ports = (pod["runtime"] or {}).get("ports") or []
    mapped = {str(port["privatePort"]): port["publicPort"] for port in ports if port["isIpPublic"]}
    return {
        "id": pod["id"], "name": pod["name"], "image": pod["imageName"], "costPerHr": pod["costPerHr"],
        "adjustedCostPerHr": pod["costPerHr"], "desiredStatus": pod["desiredStatus"], "machineId": pod["machineId"],
        "env": dict(row.split("=", 1) for row in pod["env"]), "ports": (pod["ports"] or "").split(","),
        "gpu": {"count": pod["gpuCount"], "displayName": pod["machine"]["gpuDisplayName"]},
        "publicIp": next((port["ip"] for port in ports if port["isIpPublic"]), ""),
        "portMappings": mapped or None,
        "containerDiskInGb": pod["containerDiskInGb"], "volumeInGb": pod["volumeInGb"],
        "lastStatusChange": pod["lastStatusChange"],
    }  # fmt: skip


def _of_rest(body: dict[str, Any]) -> dict[str, Any]:
    """REST's create in GraphQL's words."""
    kinds = body.get("gpuTypeIds") or [None]
    return {
        "name": body.get("name"), "imageName": body.get("imageName"), "gpuTypeId": kinds[0],
        "cloudType": body.get("cloudType") or "SECURE", "gpuCount": body.get("gpuCount"),
        "containerDiskInGb": body.get("containerDiskInGb") or 50, "volumeInGb": body.get("volumeInGb", 20),
        "ports": ",".join(body.get("ports") or ["8888/http", "22/tcp"]),
        "dockerArgs": shlex.join(body.get("dockerStartCmd") or []),
        "env": [{"key": key, "value": value} for key, value in (body.get("env") or {}).items()],
        "dataCenterId": (body.get("dataCenterIds") or [None])[0], "volumeMountPath": body.get("volumeMountPath"),
    }  # fmt: skip
