"""Vast's interface: REST as vastai-sdk 1.9.1 and SkyPilot 0.14.1 call it.

Addresses, bodies and rows: vastai/api/{offers,instances,keys,billing}.py, vastai/data/{offer,instance}.py and
sky/provision/vast/{utils,instance}.py. The words of a refusal: as issues about them quote Vast.
"""

from __future__ import annotations

import json
import operator
import re
from decimal import Decimal
from typing import Any

from tests.cloud.bill import HOURS_A_MONTH
from tests.cloud.cloud import Cloud, Machine, Order
from tests.cloud.reply import Call, Reply, after_create, listed, of_list, struck

MONTH = Decimal(720)  # Vast's month has 30 days
PAGE = 25
OPERATORS = {
    "eq": operator.eq, "neq": operator.ne, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt,
    "lte": operator.le, "in": lambda held, wanted: held in wanted, "notin": lambda held, wanted: held not in wanted,
}  # fmt: skip
# Vast's ssh launch mode: the keys of account and instance, its ssh server, then the order's own script.
START = """
mkdir -p ~/.ssh; chmod 700 ~/.ssh; echo "$SSH_KEYS" >>~/.ssh/authorized_keys; chmod 600 ~/.ssh/authorized_keys
unset SSH_KEYS
service ssh start
bash -c "$0"
sleep infinity
"""


class Vast:
    """One account at Vast."""

    name = "vast"

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.terms = cloud.catalog["vast"]

    def answer(self, call: Call) -> Reply | None:
        if not call.path.startswith("/api/v"):
            return None
        path = re.sub(r"^/api/v\d", "", call.path).strip("/")
        for method, pattern, operation, do in (
            ("POST", r"bundles", "search", self._bundles),
            ("PUT", r"search/asks", "search", self._bundles),
            ("PUT", r"asks/(\d+)", "create", self._create),
            ("GET", r"instances", "list", self._list),
            ("GET", r"instances/(\d+)", "get", self._get),
            ("DELETE", r"instances/(\d+)", "delete", self._delete),
            ("PUT", r"instances/(\d+)", "change", self._change),
            ("POST", r"instances/(\d+)/ssh", "keys", self._attach),
            ("POST", r"contracts/fetch", "contracts", self._contracts),
            ("GET", r"ssh", "keys", self._keys),
            ("POST", r"ssh", "keys", self._add_key),
            ("GET", r"users/current", "user", self._user),
        ):
            found = re.fullmatch(pattern, path)
            if found and method == call.method:
                denied = self._denied(call, operation, *found.groups())
                return denied or struck(self.cloud, self.name, operation) or do(call, *found.groups())
        return Reply({"success": False, "error": "not_found", "msg": f"nothing at {call.path}"}, 404)

    def _denied(self, call: Call, operation: str, number: str = "") -> Reply | None:
        """The account may do all; an instance's own key sees it, and ends it where the scenario grants that."""
        if call.token == self.cloud.accounts["vast"] or operation == "search":
            return None
        owner = next((m for m in self.cloud.machines.values() if m.key and m.key == call.token), None)
        if owner is None:
            return Reply({"success": False, "error": "auth_error", "msg": "Invalid user key"}, 401)
        own = owner.id == number and operation in ("get", "delete")
        if own and (operation == "get" or self.terms["self_destroy"]):
            return None
        return Reply({"success": False, "error": "forbidden", "msg": "This key has no such permission"}, 403)

    # -- offers -----------------------------------------------------------------------------------------------------

    def _rows(self, storage_gb: float) -> list[dict[str, Any]]:
        taken = {m.order.offer for m in self.cloud.machines.values() if m.order.provider == "vast" and not m.gone}
        sold = self.cloud.script.standing(self.name, "sold_out")
        rows = []
        for offer in self.terms["offers"]:
            number = str(offer["id"])
            if any(fault.params["offer"] in (None, number, offer["id"]) for fault in sold):
                taken.add(number)
            rows.append(self._row(offer, storage_gb, rented=number in taken))
        return rows

    def _row(self, offer: dict[str, Any], storage_gb: float, *, rented: bool) -> dict[str, Any]:
        disk = Decimal(offer["disk_usd_gb_month"]) * Decimal(str(storage_gb)) / MONTH
        base = Decimal(offer["usd"])
        return {
            "id": offer["id"], "ask_contract_id": offer["id"], "machine_id": offer["id"] % 100000, "host_id": 55555,
            "num_gpus": 1, "gpu_name": offer["gpu"], "gpu_ram": offer["gpu_ram_mb"],
            "gpu_total_ram": offer["gpu_ram_mb"],
            "gpu_arch": "nvidia", "gpu_frac": 1.0, "compute_cap": 890, "cuda_max_good": 13.0,
            "driver_version": "580.65",
            "cpu_cores": 32, "cpu_cores_effective": 32.0, "cpu_ram": 128000, "cpu_arch": "amd64", "disk_space": 512.0,
            "disk_bw": 3000.0, "dph_base": float(base), "dph_total": float(base + disk), "min_bid": float(base / 2),
            "storage_cost": float(offer["disk_usd_gb_month"]), "storage_total_cost": float(disk),
            "inet_up": offer["inet_up"], "inet_down": offer["inet_down"], "inet_up_cost": 0.0, "inet_down_cost": 0.0,
            "dlperf": offer["dlperf"], "dlperf_per_dphtotal": offer["dlperf"] / float(base + disk),
            "score": offer["dlperf"] / float(base), "reliability2": offer["reliability"],
            "reliability": offer["reliability"], "verification": "verified", "verified": True, "external": False,
            "hosting_type": offer["hosting_type"], "geolocation": offer["geolocation"], "static_ip": True,
            "rentable": not rented, "rented": rented, "is_bid": False, "direct_port_count": 42,
            "duration": 2_592_000.0,
        }  # fmt: skip

    def _bundles(self, call: Call) -> Reply:
        asked = dict(call.body or {})
        asked = dict(asked.get("q") or asked)
        order, limit = asked.pop("order", []), asked.pop("limit", None)
        rows = self._rows(float(asked.pop("allocated_storage", 5.0)))
        for name, tests in asked.items():
            if not isinstance(tests, dict):
                continue
            for word, wanted in tests.items():
                rows = [row for row in rows if name not in row or _holds(word, row[name], wanted)]
        for name, direction in reversed(order):
            rows.sort(key=lambda row, name=name: row.get(name) or 0, reverse=direction == "desc")
        return Reply({"offers": rows[:limit]})

    # -- instances --------------------------------------------------------------------------------------------------

    def _create(self, call: Call, number: str) -> Reply:
        asked = call.body or {}
        offer = next((one for one in self.terms["offers"] if str(one["id"]) == number), None)
        with self.cloud.lock:
            taken = any(m.order.offer == number and not m.gone for m in self.cloud.machines.values())
            sold = self.cloud.script.take(self.name, "create", "sold_out", offer=number)
            if offer is None or taken or sold:
                self.cloud.note("sold_out", provider=self.name, offer=number)
                said = f"error 404/3603: no_such_ask Instance type by id {number} is not available."
                return Reply({"success": False, "error": "no_such_ask", "msg": said, "ask_id": int(number)}, 400)
            name, key = str(20_000_000 + self.cloud.random.randrange(9_000_000)), self.cloud.token(64)
            given = {str(k): str(v) for k, v in (asked.get("env") or {}).items() if not str(k).startswith("-")}
            env = given | {
                "CONTAINER_ID": name, "CONTAINER_API_KEY": key, "GPU_COUNT": "1", "VAST_CONTAINERLABEL": f"C.{name}",
                "SSH_KEYS": "\n".join(self.cloud.ssh_keys["vast"]),
                "VAST_URL": self.cloud.url,  # the one thing that no instance has: where the simulation is
            }  # fmt: skip
            order = Order(
                self.name, str(asked.get("label") or ""), number, Decimal(offer["usd"]),
                float(asked.get("disk") or 10),
                Decimal(offer["disk_usd_gb_month"]) * HOURS_A_MONTH / MONTH, env,
                ["bash", "-c", START, asked.get("onstart") or ":"],
                facts={"offer": offer, "asked": asked, "env": given},
            )  # fmt: skip
            machine = self.cloud.create(order, name, key)
        done = {"success": True, "new_contract": int(machine.id), "instance_api_key": key, "ask_id": int(number)}
        return after_create(self.cloud, self.name, Reply(done))

    def _instance(self, machine: Machine | None) -> dict[str, Any]:
        """An instance's row; without a machine, that of an instance of somebody else."""
        if machine is None:
            return {"id": 99, "label": "not-yours", "actual_status": "running", "cur_state": "running",
                    "intended_status": "running", "start_date": 0.0, "extra_env": [], "dph_total": 0.5}  # fmt: skip
        offer, asked = machine.order.facts["offer"], machine.order.facts["asked"]
        row = self._row(offer, machine.order.disk_gb, rented=True)
        base = float(machine.usd_per_hour)
        runs = machine.state == "running"
        state = {"booting": "loading", "running": "running", "stopped": "exited"}.get(machine.state, "exited")
        wanted = "stopped" if machine.state == "stopped" else "running"
        port = machine.box.port if runs else None
        return row | {
            "id": int(machine.id), "label": machine.order.label or None, "actual_status": state,
            "cur_state": wanted, "next_state": wanted, "intended_status": wanted, "status_msg": "",
            "dph_base": base, "dph_total": base + row["storage_total_cost"], "disk_space": machine.order.disk_gb,
            "image_uuid": asked.get("image"), "image_runtype": asked.get("runtype") or "ssh", "image_args": None,
            "ssh_host": machine.box.ip if runs else None, "ssh_port": port, "ssh_idx": "4",
            "public_ipaddr": machine.box.ip if runs else None, "local_ipaddrs": "", "jupyter_token": None,
            "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(port)}]} if runs else None,
            "start_date": machine.created, "end_date": None, "onstart": asked.get("onstart"),
            "extra_env": [[name, value] for name, value in machine.order.facts["env"].items()],
            "uptime_mins": (self.cloud.now() - machine.started) / 60 if machine.started and runs else None,
        }  # fmt: skip

    def _list(self, call: Call) -> Reply:
        fault = of_list(self.cloud, self.name)
        held = sorted(self.cloud.seen(self.name), key=lambda machine: int(machine.id))
        rows = listed([self._instance(machine) for machine in held], fault, self._instance(None))
        start, limit = int(call.query.get("after_token") or 0), int(call.query.get("limit") or PAGE)
        wanted = json.loads(call.query.get("select_filters") or "{}")
        for name, tests in wanted.items():
            rows = [row for row in rows if all(_holds(word, row.get(name), value) for word, value in tests.items())]
        more = str(start + limit) if start + limit < len(rows) else None
        page = {"success": True, "instances": rows[start : start + limit], "next_token": more,
                "total_instances": len(rows)}  # fmt: skip
        return Reply(page, cut=bool(fault and fault.fault == "malformed_list"))

    def _contracts(self, call: Call) -> Reply:
        """vastai-sdk 1.9.1, api/billing.py: fetch_contracts. Whether ended ones are in it is not known: they are."""
        wanted, now = (call.body or {}).get("label"), self.cloud.now()
        held = [m for m in self.cloud.machines.values() if m.order.provider == self.name and m.visible_from <= now]
        rows = [{"id": int(m.id), "label": m.order.label or None, "type": "instance", "start_date": m.created,
                 "end_date": m.ended} for m in held if wanted in (None, m.order.label)]  # fmt: skip
        return Reply({"success": True, "contracts": rows})

    def _get(self, _: Call, number: str) -> Reply:
        machine = self.cloud.find(self.name, number)
        return Reply({"instances": self._instance(machine) if machine else None})

    def _missing(self, number: str) -> Reply:
        said = f"Instance {number} not found."
        return Reply({"success": False, "error": "no_such_instance", "msg": said}, 404)

    def _delete(self, call: Call, number: str) -> Reply:
        machine = self.cloud.find(self.name, number)
        if not machine:
            return self._missing(number)
        self.cloud.destroy(machine, by="itself" if call.token == machine.key else "account")
        return Reply({"success": True, "msg": f"Instance {number} destroyed."})

    def _change(self, call: Call, number: str) -> Reply:
        machine, asked = self.cloud.find(self.name, number), call.body or {}
        if not machine:
            return self._missing(number)
        if asked.get("state") == "stopped":
            self.cloud.stop(machine)
        if "label" in asked:
            machine.order.label = str(asked["label"])
        return Reply({"success": True})

    # -- keys and user ----------------------------------------------------------------------------------------------

    def _attach(self, call: Call, number: str) -> Reply:
        machine, key = self.cloud.find(self.name, number), str((call.body or {}).get("ssh_key") or "").strip()
        if not machine:
            return self._missing(number)
        with self.cloud.lock:
            if machine.state == "running" and not machine.never:
                machine.box.enter("sh", "-c", 'mkdir -pm 700 ~/.ssh; echo "$0" >>~/.ssh/authorized_keys', key)
            else:
                machine.order.env["SSH_KEYS"] = f"{machine.order.env['SSH_KEYS']}\n{key}"
        return Reply({"success": True, "msg": "SSH key added to instance."})

    def _keys(self, _: Call) -> Reply:
        held = [{"id": at, "public_key": key} for at, key in enumerate(self.cloud.ssh_keys["vast"], 1)]
        return Reply(held)  # a bare list: SkyPilot 0.14.1 (sky/authentication.py) goes through it as it comes

    def _add_key(self, call: Call) -> Reply:
        self.cloud.ssh_keys["vast"].append(str((call.body or {}).get("ssh_key")).strip())
        return Reply({"success": True, "id": len(self.cloud.ssh_keys["vast"])})

    def _user(self, _: Call) -> Reply:
        return Reply({"id": 42, "username": "someone", "email": "someone@example.com", "balance": 0.0,
                      "credit": float(self.terms["balance_usd"]), "ssh_key": None})  # fmt: skip


def _holds(word: str, held: Any, wanted: Any) -> bool:
    """Whether a row's value passes a test; the SDK writes a query's numbers and truths as text."""
    if isinstance(held, bool) and isinstance(wanted, str):
        wanted = wanted.lower() == "true"
    elif isinstance(held, int | float) and isinstance(wanted, str):
        wanted = float(wanted)
    try:
        return bool(OPERATORS[word](held, wanted))
    except (KeyError, TypeError):
        return False
