"""SkyPilot 0.14.1 by itself, as its documentation has it used: the `sky` command line in a home of its own.

Nothing of ours is in force: no plugin, no policy, no configuration. Only what keeps it on this machine is set: the
simulated cloud's address and key, price catalogs of that cloud's own figures, no usage reports, a port of its own.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from bench.leaks.side import LONG_S, Side, until
from launcher.clock import SystemClock
from launcher.home import Home
from launcher.providers.skypilot.lodging import Lodging
from launcher.providers.skypilot.server import _free_port  # of two that it needs
from tests.cloud import catalog

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
L40S = {"infra": "runpod/US", "instance_type": "1x_L40S_SECURE", "disk_size": 50}


class Plain:
    """One user's SkyPilot on one side's cloud; `home` is that user's home."""

    def __init__(self, side: Side) -> None:
        self.side, self.cluster = side, f"c-{secrets.token_hex(3)}"
        root = side.folder / "plain"
        self._lodging = Lodging(Home(root).ensure(), "runpod", self.cluster, SystemClock())
        self.home = self._lodging.folder
        for name in (".sky", "tmp", ".runpod", "work"):
            (self.home / name).mkdir(parents=True)
        catalog.place(root)
        (self.home / ".sky" / "catalogs").symlink_to(root / "skypilot" / ".shared" / "catalogs")
        key = json.dumps(side.env["RUNPOD_API_KEY"])
        (self.home / ".runpod" / "config.toml").write_text(f"[default]\napi_key = {key}\n", encoding="utf-8")
        self._log = self.home / "launch.log"

    def close(self) -> None:
        """End its client and its API server, and remove what it wrote."""
        self._lodging.remove()

    @property
    def _env(self) -> dict[str, str]:
        own = self._lodging.environment()
        own.pop("PYTHONPATH", None)  # there is no plugin
        own.pop("PYTHONSAFEPATH", None)
        return own | {name: self.side.env[name] for name in ("RUNPOD_API_BASE_URL", "VAST_URL")}

    def use_vast(self, usd_per_hour: str) -> None:
        """Vast's key where its command line keeps it, and SkyPilot's price file of Vast, which is never renewed."""
        key = self.home / ".config" / "vastai" / "vast_api_key"
        key.parent.mkdir(parents=True)
        key.write_text(self.side.env["VAST_API_KEY"], encoding="utf-8")
        folder = self.home / ".sky" / "catalogs" / "v8" / "vast"
        folder.mkdir(parents=True)
        gpu = {"Gpus": [{"Name": "RTX4090", "Count": 1, "MemoryInfo": {"SizeInMiB": 24564}}],
               "TotalGpuMemoryInMiB": 24564}  # fmt: skip
        row = f'1x-RTX_4090-32-65536,RTX4090,1,32,64.0,"{gpu}",{usd_per_hour},0.00,"Germany, DE, EU"'
        (folder / "vms.csv").write_text(f"{_VAST}\n{row}\n", encoding="utf-8")

    def sky(self, *words: str, timeout_s: float = LONG_S) -> subprocess.CompletedProcess[str]:
        """One command, to its end: exit code and all that it printed."""
        return subprocess.run(
            [_SKY, *words], cwd=self.home / "work", env=self._env, text=True, check=False, timeout=timeout_s,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _start_server(self) -> None:
        """What `sky api start` starts, with more patience than that, and again where its port was taken."""
        log = self.home / "server.log"
        for _ in range(3):
            port = _free_port()
            self._lodging.note(port=port)
            with log.open("wb") as said:
                server = subprocess.Popen(
                    [sys.executable, "-u", "-m", "sky.server.server", "--host=127.0.0.1", f"--port={port}"],
                    cwd=self.home, env=self._env | {"IS_SKYPILOT_SERVER": "true"}, stdin=subprocess.DEVNULL,
                    stdout=said, stderr=said, start_new_session=True,
                )  # fmt: skip
            until(lambda port=port, server=server: _is_healthy(port) or server.poll() is not None)
            if server.poll() is None:
                return
            self._lodging.end()
        raise RuntimeError(f"SkyPilot's API server does not start: {log.read_text(encoding='utf-8')[-500:]}")

    def launch(self, run: str, *words: str, resources: dict[str, Any] | None = None) -> subprocess.Popen[bytes]:
        """Begin `sky launch -y -c CLUSTER WORDS task.yaml`, which stays with the job; `log` is what it prints."""
        self._start_server()
        task = {"resources": resources or L40S, "run": run}
        (self.home / "work" / "task.yaml").write_text(json.dumps(task), encoding="utf-8")
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [_SKY, "launch", "-y", "-c", self.cluster, *words, "task.yaml"], cwd=self.home / "work",
                env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What `sky launch` has printed."""
        if not self._log.exists():
            return ""
        return plain_text(self._log.read_text(encoding="utf-8", errors="replace"))

    def kill_server(self, but: int) -> int:
        """SIGKILL to its API server and all of its workers, not to the client; how many there were."""
        spared, killed = {but}, 0
        with suppress(psutil.Error):
            spared |= {child.pid for child in psutil.Process(but).children()}
        for process in self._lodging.processes():
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if process.pid not in spared or "sky.server" in words or words.startswith("SkyPilot:"):
                    process.send_signal(signal.SIGKILL)
                    killed += 1
        assert killed, "there was no API server to be killed"
        return killed


def _is_healthy(port: int) -> bool:
    with suppress(OSError, ValueError), urlopen(f"http://127.0.0.1:{port}/api/health", timeout=30) as answer:
        return bool(json.loads(answer.read()).get("status") == "healthy")
    return False


def plain_text(text: str) -> str:
    """Without colours, and with each redrawn line as it was last."""
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in _COLOUR.sub("", text).splitlines()]
    return "\n".join(line for line in lines if line)


_SKY = str(Path(sys.executable).with_name("sky"))
#: Columns as in SkyPilot's own file of Vast's prices.
_VAST = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region"
