"""A laptop that is shut in the midst of training: its network is gone for the rest of the run, at each provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fast import make_ground
from jobs import REPO, Launcher
from rented import STEP_S, RentedGround, standing_cloud

from launcher.providers.runpod_api import carries
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "29")
PROVIDERS = ("runpod", "brev", "vast") if os.environ.get("LAUNCHER_FAULTS") == "all" else ("runpod", "brev")


class Laptop:
    """A computer of its own on the cloud's network: what runs on it has this one cable and no other."""

    def __init__(self, cloud: Standing, number: int) -> None:
        held = json.loads((cloud.state / "cloud.json").read_text())
        self.name, self.cable = f"laptop{number}-{os.getpid()}", f"{held['bridge']}l{number}"
        address, gateway = f"{held['prefix']}.{240 + number}/24", f"{held['prefix']}.1"
        self.url = f"http://{gateway}:{urlsplit(cloud.url).port}"
        call("ip", "netns", "add", self.name)
        call("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        call("ip", "link", "set", self.cable, "master", held["bridge"], "up")
        for words in (f"addr add {address} dev eth0", "link set eth0 up", "link set lo up"):
            call("ip", "-n", self.name, *words.split())

    def run(self, home: Path, env: dict[str, str], *args: object) -> subprocess.Popen[str]:
        verb = [sys.executable, "-m", "launcher", "--home", str(home), *map(str, args)]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *verb],
            env={**os.environ, **env, "PYTHONPATH": str(REPO)}, text=True, cwd=home.parent,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def shut(self) -> None:
        call("ip", "link", "set", self.cable, "down")

    def open_again(self) -> None:
        call("ip", "link", "set", self.cable, "up")

    def forget(self) -> None:
        """Everything that still ran on it is gone: it was shut for long."""
        while left := call("ip", "netns", "pids", self.name).split():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)

    def remove(self) -> None:
        self.forget()
        for words in (("link", "del", self.cable), ("netns", "del", self.name)):
            subprocess.run(["ip", *words], check=False, capture_output=True)


def call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def shut(cloud: Standing, tmp: Path, provider: str, number: int, via: str = "direct") -> dict[str, Any]:
    """One run whose laptop is shut while it trains; what became of it, and what the reaper says once it is open."""
    laptop = Laptop(cloud, number)
    try:
        folder = tmp / provider
        folder.mkdir()
        ground = RentedGround(make_ground(folder / "ground"), Launcher(folder / "home"), cloud)
        job = ground.job(provider, via, steps=60, step_s=0.1, name=f"{provider}.yaml")
        if via == "skypilot":
            catalog.place(ground.launcher.home)
        names = ("RUNPOD_API_BASE_URL", "VAST_URL", "BREV_API_URL", "BREV_PUBLIC_API_URL")
        env = {**ground.env, **dict.fromkeys((*names, "LAUNCHER_SIMULATED_CLOUD_URL"), laptop.url),
               "LAUNCHER_COLLECT_WAIT_S": "5"}  # fmt: skip
        process = laptop.run(ground.launcher.home, env, "run", job, "--confirm", "YES", "--max-cost", "3", "--json")
        runs = ground.launcher.home / "runs"
        until(lambda: process.poll() is not None or any(
            '"at_step": 5' in file.read_text() for file in runs.glob("*/events.jsonl")))  # fmt: skip
        assert process.poll() is None, process.communicate()
        laptop.shut()
        (lease,) = ground.ledger.leases()
        mine = next(row["id"] for row in cloud.bill()["machines"] if carries(row["label"], lease.label))
        there = partial(inside, ground.launcher.home, lease.run, lease.lease)
        root = f"parakeet/{lease.label}"
        until(lambda: cloud.billed(mine)["state"] == "terminated" or '"ended"' in there(f"cat {root}/watchdog.json"))
        by_itself = cloud.billed(mine)["state"]
        said = there(f"cat {root}/watchdog.json") if by_itself == "running" else "{}"
        left, working = there(f"ls -A {root}").split(), there("pgrep -af fast_recipe")
        laptop.forget()
        laptop.open_again()
        reap = laptop.run(ground.launcher.home, env, "reap", "--run", lease.run, "--json")
        out, err = reap.communicate(timeout=300)
        plan = json.loads((runs / lease.run / "plan.json").read_text())
        chosen = plan["candidates"][plan["chosen"]]
        return {"left_of_skypilot": list(ground.launcher.home.glob("skypilot/pl-*")),
                "reap": json.loads(out), "err": err, "by_itself": by_itself, "watchdog": json.loads(said),
                "left": left, "working": working, "end": cloud.billed(mine)["state"], "named": chosen["released_by"],
                "usd": Decimal(str(cloud.billed(mine)["usd"])), "charged": ground.ledger.spent(lease.run),
                "lease": ground.ledger.leases()[0], "ceiling": Decimal(chosen["ceiling"]["usd"])}  # fmt: skip
    finally:
        laptop.remove()


def inside(home: Path, run: str, lease: str, script: str) -> str:
    """What a shell on the machine says, from elsewhere on its network, by the lease's own key."""
    folder = home / "runs" / run / "keys" / lease
    done = subprocess.run(["ssh", "-F", "ssh_config", "lease", script], cwd=folder, capture_output=True, text=True,
                          check=False)  # fmt: skip
    return done.stdout


def judge(provider: str, of: dict[str, Any]) -> None:
    """It ended by the layer that its plan named, inside the ceiling, and our books say what the bill says."""
    named = of["named"]
    if provider == "runpod":
        assert any("box ends itself" in words for words in named)
        assert of["by_itself"] == "terminated"
    else:
        assert any("box timer stops all work" in words for words in named)
        assert any("reaper" in words for words in named)
        assert of["by_itself"] == "running"  # it may not end itself: it waits for the reaper
        assert of["watchdog"]["why"] == "nobody came to collect"
        assert set(of["left"]) == {"steps", "watchdog.json"}  # no data, no model, no code
        assert of["working"] == ""
    (released,) = of["reap"]["released"]
    assert (of["end"], of["reap"]["pending"], of["reap"]["exit"]) == ("terminated", [], 0), of["err"]
    if provider != "runpod":
        assert released["watchdog"]["state"] == "ended"
    assert str(of["lease"].state) == "released"
    charged, step = Decimal(of["charged"]), of["lease"].max_usd_per_hour * STEP_S[provider] / 3600
    # Nobody of ours saw a machine end itself: it is charged up to when it was seen to be gone.
    assert of["usd"] <= charged + step if provider == "runpod" else abs(charged - of["usd"]) <= step, of
    assert max(charged, of["usd"]) <= of["ceiling"]


def test_it_ends_inside_the_ceiling_by_the_layer_that_the_plan_named(standing: Standing, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(partial(shut, standing, tmp_path), PROVIDERS, range(len(PROVIDERS))))
    for provider, of in zip(PROVIDERS, found, strict=True):
        judge(provider, of)


@pytest.mark.slow("LAUNCHER_FAULTS")
def test_a_machine_that_skypilot_rented_does_so_too(tmp_path: Path) -> None:
    """SkyPilot's own server is shut with the laptop that it runs on."""
    (folder := tmp_path / "cloud").mkdir()
    with standing_cloud(folder, "--seed", "31", "--layer", str(image.ensure())) as cloud:
        judge("runpod", found := shut(cloud, tmp_path, "runpod", 0, "skypilot"))
    assert found["left_of_skypilot"] == []
