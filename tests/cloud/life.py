"""A cloud's beginning and end: what it writes of itself, so that `down` finds everything even after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cloud.brev import Brev
from tests.cloud.cloud import Cloud
from tests.cloud.machine import MARK, Network, end_all, pids_of
from tests.cloud.runpod import RunPod
from tests.cloud.server import serve
from tests.cloud.vast import Vast

BIN = Path(__file__).with_name("bin")


@dataclass
class Standing:
    """What `down` must know."""

    pid: int
    mark: str
    bridge: str
    prefix: str
    url: str

    @classmethod
    def read(cls, folder: Path) -> Standing | None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**json.loads((folder / "cloud.json").read_text(encoding="utf-8")))
        return None

    def alive(self) -> bool:
        return self.pid in set(pids_of(self.mark))


def stand(folder: Path, cloud: Cloud, names: list[str]) -> list[Any]:
    """Begin to serve; what is needed to end it is on disk first."""
    kinds = {"runpod": RunPod, "vast": Vast, "brev": Brev}
    providers = [kinds[name](cloud) for name in names]
    held = Standing(os.getpid(), cloud.mark, cloud.network.bridge, cloud.network.prefix, "")
    _write(folder, held)
    servers = serve(cloud, providers)
    held.url = f"http://127.0.0.1:{servers[0].server_address[1]}"
    _write(folder, held)
    cloud.note("up", url=held.url, providers=names)
    return servers


def _write(folder: Path, held: Standing) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "cloud.json.new"
    beside.write_text(json.dumps(asdict(held)), encoding="utf-8")
    beside.replace(folder / "cloud.json")


def environment(folder: Path, cloud: Cloud) -> dict[str, str]:
    """What to export, so that every client speaks to this cloud and to none other."""
    held = Standing.read(folder)
    assert held
    return {
        "LAUNCHER_SIMULATED_CLOUD_URL": held.url,
        "RUNPOD_API_BASE_URL": held.url, "RUNPOD_API_KEY": cloud.accounts["runpod"],
        "VAST_URL": held.url, "VAST_API_KEY": cloud.accounts["vast"],
        "BREV_API_URL": held.url, "BREV_PUBLIC_API_URL": held.url, "BREV_API_KEY": cloud.accounts["brev"],
        "PATH": str(BIN),
    }  # fmt: skip


def down(folder: Path) -> list[str]:
    """End the cloud and remove every trace; what could not be removed, in words."""
    held = Standing.read(folder)
    left: list[str] = []
    if held:
        with contextlib.suppress(ProcessLookupError):
            if held.alive():
                os.kill(held.pid, signal.SIGKILL)
        left += [f"process {pid} ({MARK}={held.mark})" for pid in end_all(held.mark)]
        Network(held.bridge, held.prefix).release()
        if Path(f"/sys/class/net/{held.bridge}").exists():
            left.append(f"network device {held.bridge}")
    if not left:
        shutil.rmtree(folder, ignore_errors=True)
    return left
