"""Brev's side of the `brev` command (bin/brev): instance types without a login, and instances of one organization.

The public endpoint is GET v1/instance/types as brev-cli's gpusearch reads it. Beneath the command, Brev's protocol is
not imitated: what a launcher sees is the command, whose words and shapes bin/brev takes from brev-cli's source.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tests.cloud.cloud import Cloud, Machine, Order
from tests.cloud.machine import call as run
from tests.cloud.reply import Call, Reply, after_create, listed, of_list, struck

STATUS = {"booting": "DEPLOYING", "running": "RUNNING", "stopped": "STOPPED", "deleting": "DELETING"}
# A virtual machine of a cloud behind Brev: its user is ubuntu, who may become root.
START = """
useradd -m -s /bin/bash ubuntu
mkdir -p /etc/sudoers.d; echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ubuntu
install -d -m 700 -o ubuntu -g ubuntu ~ubuntu/.ssh
echo "$SSH_KEYS" >~ubuntu/.ssh/authorized_keys; chown ubuntu:ubuntu ~ubuntu/.ssh/authorized_keys
unset SSH_KEYS
service ssh start
bash -c "$0"
sleep infinity
"""


class Brev:
    """One organization at Brev."""

    name = "brev"

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.terms = cloud.catalog["brev"]
        key = cloud.folder / "brev.pem"
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "brev", "-f", key)
        self.private_key = key.read_text(encoding="utf-8")
        cloud.ssh_keys["brev"] = [key.with_suffix(".pem.pub").read_text(encoding="utf-8").strip()]

    def answer(self, call: Call) -> Reply | None:
        if (call.method, call.path) == ("GET", "/v1/instance/types"):
            return struck(self.cloud, self.name, "search") or Reply({"items": self._types()})
        if not call.path.startswith("/brev/"):
            return None
        if call.token != self.cloud.accounts["brev"]:
            return Reply({"error": "you are not logged in. Run brev login"}, 401)
        name = call.path.removeprefix("/brev/instances").strip("/")
        operation = {"GET": "get" if name else "list", "POST": "create", "DELETE": "delete", "PUT": "stop"}[
            call.method
        ]
        if call.path == "/brev/org":  # a stranger's login sees the stranger's organization, not only its machines
            strange = self.cloud.script.standing(self.name, "wrong_account")
            return Reply(
                {
                    "name": "strangers" if strange else "simulated",
                    "id": f"org-{'strangers' if strange else 'simulated'}",
                }
            )
        if call.path == "/brev/key":
            return Reply({"private_key": self.private_key})
        failed = struck(self.cloud, self.name, operation)
        if failed:
            return failed
        if operation == "list":
            return self._list()
        if operation == "create":
            return self._create(call.body or {})
        machine = self.cloud.find(self.name, name)
        if not machine:
            return Reply({"error": f"no instance named {name}"}, 404)
        if operation == "delete":
            self.cloud.destroy(machine, after_s=self.cloud.figures["delete_s"])
        elif operation == "stop":
            self.cloud.stop(machine)
        return Reply(self._instance(machine))

    def _price(self, kind: dict[str, Any]) -> str:
        """A type that was rented at another price is listed at that price for as long as this goes on."""
        rented = [m.usd_per_hour for m in self.cloud.seen(self.name) if m.order.offer == kind["type"]]
        return str(max([Decimal(kind["usd"]), *rented]))

    def _types(self) -> list[dict[str, Any]]:
        return [
            {
                "type": one["type"], "provider": one["cloud"], "location": "us-east-1", "sub_location": "", "vcpu": 4,
                "supported_gpus": [{"count": 1, "name": one["gpu"], "manufacturer": "NVIDIA",
                                    "memory": f"{int(one['vram_gb'] * 1024)}MiB",
                                    "memory_bytes": {"value": int(one["vram_gb"] * 1024), "unit": "MiB"}}],
                "supported_storage": [{"min_size": "10GiB", "max_size": "16TiB", "type": "ssd", "price_per_gb_hr": {
                    "currency": "USD", "amount": f"{Decimal(one['disk_usd_gb_month']) / 730:.6f}"}}],
                "supported_architectures": ["x86_64"], "memory": "32GiB", "stoppable": True, "rebootable": True,
                "base_price": {"currency": "USD", "amount": self._price(one)},
                "estimated_deploy_time": f"{one['boot_s'] // 60}m{one['boot_s'] % 60}s",
            }
            for one in self.terms["types"]
        ]  # fmt: skip

    def _create(self, asked: dict[str, Any]) -> Reply:
        kind = next((one for one in self.terms["types"] if one["type"] == asked.get("type")), None)
        with self.cloud.lock:
            if not kind or self.cloud.script.take(self.name, "create", "sold_out", offer=asked.get("type")):
                self.cloud.note("sold_out", provider=self.name, offer=asked.get("type"))
                return Reply({"error": f"instance type {asked.get('type')} is not available"}, 503)
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", str(asked.get("name"))):
                return Reply({"error": "a name is letters, digits and hyphens"}, 400)
            if self.cloud.find(self.name, str(asked["name"])):
                return Reply({"error": f"an instance named {asked['name']} exists already"}, 409)
            order = Order(
                self.name, str(asked["name"]), kind["type"], Decimal(kind["usd"]), float(asked.get("disk_gb") or 120),
                Decimal(kind["disk_usd_gb_month"]), {"SSH_KEYS": "\n".join(self.cloud.ssh_keys["brev"])},
                ["bash", "-c", START, asked.get("startup_script") or ":"], facts={"type": kind},
                boot_s=float(kind["boot_s"]) if self.cloud.figures["type_boot"] else None,
            )  # fmt: skip
            machine = self.cloud.create(order, self.cloud.token(9), "")
        return after_create(self.cloud, self.name, Reply(self._instance(machine)))

    def _instance(self, machine: Machine | None) -> dict[str, Any]:
        if machine is None:
            return {"name": "not-yours", "id": "strangers", "status": "RUNNING", "build_status": "COMPLETED",
                    "shell_status": "READY", "health_status": "HEALTHY", "instance_type": "g5.xlarge",
                    "instance_kind": "gpu", "gpu": "A10G", "ip": "", "port": 0, "user": "ubuntu"}  # fmt: skip
        runs = machine.state == "running"
        return {
            "name": machine.order.label, "id": machine.id, "status": STATUS.get(machine.state, "DELETING"),
            "build_status": "COMPLETED" if runs else "BUILDING", "shell_status": "READY" if runs else "NOT READY",
            "health_status": "HEALTHY" if runs else "", "instance_type": machine.order.offer, "instance_kind": "gpu",
            "gpu": machine.order.facts["type"]["gpu"], "ip": machine.box.ip if runs else "", "port": machine.box.port,
            "user": self.terms["ssh_user"],
        }  # fmt: skip

    def _list(self) -> Reply:
        fault = of_list(self.cloud, self.name)
        rows = [self._instance(machine) for machine in self.cloud.seen(self.name)]
        rows = listed(rows, fault, self._instance(None))
        return Reply({"workspaces": rows}, cut=bool(fault and fault.fault == "malformed_list"))
