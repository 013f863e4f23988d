"""One request to a lease's API server through SkyPilot's own client: JSON in on stdin, JSON out on the last line.

Run as a program in a private home (`server.py`): the launcher's own process never imports `sky`, which takes 175
times as long as Python's start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def main() -> int:
    """Do what stdin says; what SkyPilot raises is an answer, too."""
    asked = json.loads(sys.stdin.read())
    try:
        answer = _VERBS[asked.pop("verb")](**asked)
    except Exception as error:  # noqa: BLE001 - whatever it is, its name and words are the answer
        answer = {"error": type(error).__name__, "words": _words(error)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    return 0


def _words(error: BaseException) -> str:
    """The message, and those of the attempts that SkyPilot gave up one by one."""
    attempts = getattr(error, "failover_history", None) or []
    return " | ".join([str(error), *(f"{type(one).__name__}: {one}" for one in attempts)])


def _launch(task: dict[str, Any], cluster: str, cloud: str, region: str) -> dict[str, Any]:
    import sky

    pinned = _pin(task["resources"], cloud, region)
    request = sky.launch(sky.Task.from_yaml_config(task), cluster_name=cluster)
    return {"request": str(request), "region": region if pinned else ""}


def _pin(machine: dict[str, Any], cloud: str, region: str) -> bool:
    """Name the machine as SkyPilot does, and its region where its catalog has it there; whether it has."""
    from sky import catalog

    if cloud == "runpod":
        machine["instance_type"] = _runpod_type(machine["instance_type"])
    known = catalog.get_region_zones_for_instance_type(machine["instance_type"], False, cloud)
    if not known:
        raise ValueError(f"SkyPilot's catalog of {cloud} has no {machine['instance_type']}")
    pinned = region in [one.name for one in known]
    machine["infra"] = f"{cloud}/{region}" if pinned else cloud
    return pinned


def _exec(task: dict[str, Any], cluster: str, cloud: str, region: str) -> dict[str, Any]:
    """Run a task on a cluster's machines, all or none; returns once it is in the cluster's queue."""
    import sky

    _pin(task["resources"], cloud, region)
    job, _ = sky.get(sky.exec(sky.Task.from_yaml_config(task), cluster_name=cluster))
    return {"job": job}


def _cancel(cluster: str) -> dict[str, Any]:
    import sky

    sky.get(sky.cancel(cluster, all=True))
    return {}


def _runpod_type(told: str) -> str:
    """SkyPilot's name of a machine type, such as 1x_L40S_SECURE, for RunPod's own: `1 NVIDIA L40S/secure`."""
    from sky.provision.runpod.utils import GPU_NAME_MAP

    count, _, rest = told.partition(" ")
    gpu, _, kind = rest.rpartition("/")
    if not gpu:
        return told
    names = [name for name, theirs in GPU_NAME_MAP.items() if theirs == gpu]
    if not names:
        raise ValueError(f"SkyPilot cannot rent {gpu!r} at RunPod")
    return f"{count}x_{names[0]}_{kind.upper()}"


def _outcome(request: str) -> dict[str, Any]:
    """How a request ended; raises what it raised."""
    import sky

    sky.get(request)
    return {}


def _autostop(cluster: str, minutes: int) -> dict[str, Any]:
    from sky.skylet.autostop_lib import AutostopWaitFor

    import sky

    sky.get(sky.autostop(cluster, minutes, wait_for=AutostopWaitFor.NONE, down=True))
    return {}


def _down(cluster: str) -> dict[str, Any]:
    import sky

    sky.get(sky.down(cluster))
    return {}


def _status(cluster: str, refresh: bool = True) -> dict[str, Any]:
    """A cluster with the addresses of its machines: as SkyPilot finds it at the provider now, or remembers it."""
    from sky.utils.common import StatusRefreshMode

    import sky

    mode = StatusRefreshMode.FORCE if refresh else StatusRefreshMode.NONE
    rows = sky.get(sky.status([cluster], refresh=mode))
    return {"clusters": [_row(row) for row in rows]}


def _row(row: Any) -> dict[str, Any]:
    handle = row["handle"]
    ips = getattr(handle, "cached_external_ips", None) or []
    ports = getattr(handle, "cached_external_ssh_ports", None) or []
    return {
        "name": row["name"], "status": row["status"].value, "launched_at": row["launched_at"],
        "doors": [[ip, ports[n] if n < len(ports) else 22] for n, ip in enumerate(ips)],
        "user": getattr(handle, "ssh_user", None) or "root", "nodes": getattr(handle, "launched_nodes", 1),
    }  # fmt: skip


_VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "launch": _launch, "outcome": _outcome, "autostop": _autostop, "down": _down, "status": _status, "exec": _exec,
    "cancel": _cancel,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
