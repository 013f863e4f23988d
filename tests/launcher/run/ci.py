"""A CI that runs the example workflows' own commands against the simulated cloud, and ends them as GitHub does."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from jobs import REPO
from rented import RentedGround

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.base import Intent
from launcher.providers.registry import provider_named
from tests.patience import until

EXAMPLES = REPO / "examples" / "ci" / "github"
OFFERS = {"runpod": ("NVIDIA L40S/secure", "0.86"), "vast": ("12345690", "0.60")}
TRACKING = "RUNNER_TRACKING_ID"  # in every process of a GitHub job; what is left of it at the end is killed by it
MOMENTS = ("started", "created", "armed", "busy")
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


@dataclass
class Workflow:
    """One workflow file with what its expressions stand for: expression -> value, secrets from `secrets`."""

    file: Path
    expressions: dict[str, str]
    secrets: dict[str, str]

    @property
    def text(self) -> dict[str, Any]:
        held: dict[str, Any] = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        return held

    def value(self, text: str) -> str:
        """A text with its expressions evaluated; KeyError for one that GitHub would not know here either."""

        def filled(found: re.Match[str]) -> str:
            name = found[1].strip()
            return self.secrets.get(name[8:], "") if name.startswith("secrets.") else self.expressions[name]

        return _EXPRESSION.sub(filled, str(text))

    def steps(self) -> list[dict[str, Any]]:
        (job,) = self.text["jobs"].values()
        return list(job["steps"])

    def start(self, step: str, folder: Path, **env: str) -> subprocess.Popen[str]:
        """One step's own command as GitHub runs it: bash -e, the workflow's environment and the step's."""
        (found,) = [each for each in self.steps() if each.get("name") == step]
        declared = {**self.text.get("env", {}), **found.get("env", {})}
        script = folder / f".step-{re.sub('[^a-z]', '-', step.lower())}.sh"
        script.write_text(found["run"], encoding="utf-8")
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script], cwd=folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "CI": "true",
                 **{name: self.value(text) for name, text in declared.items()}, **env},
        )  # fmt: skip


@dataclass
class Ci:
    """Runs and reaps of one project; each run on a machine whose disk it loses at its end."""

    ground: RentedGround
    folder: Path

    def __post_init__(self) -> None:
        program = self.folder / "bin" / "launcher"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m launcher "$@"\n')
        program.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        """Beside the workflow's own: where this cloud stands in for the providers', and the stand-in recipe."""
        held = {name: text for name, text in self.ground.env.items() if not name.endswith("_KEY")}
        return {**held, "PATH": f"{self.folder / 'bin'}:{held['PATH']}", "PYTHONPATH": str(REPO), "CI": "true"}

    def workflow(self, name: str, **expressions: str) -> Workflow:
        return Workflow(EXAMPLES / name, expressions, self.ground.cloud.env)

    def owner(self, run: int) -> str:
        return f"gha-{run}-1"

    def cancelled(self, run: int, provider: str, moment: str, pause_s: float, *, evicted: bool) -> None:
        """One training run that is cancelled `pause_s` after a moment of its provisioning, or whose machine goes."""
        disk = self.folder / f"disk-{run}"
        shutil.copytree(self.ground.fast.folder, disk)
        expressions = {"github.run_id": str(run), "github.run_attempt": "1", "github.workspace": str(disk),
                       "inputs.job": f"{provider}.yaml", "inputs.max_cost": "3"}  # fmt: skip
        train = self.workflow("train.yml")
        train.expressions |= expressions
        tag = f"github_{run}_{random.getrandbits(48):x}"
        process = train.start("Train", disk, **self.env, **{TRACKING: tag})
        until(lambda: self._is_at(run, disk, moment) or process.poll() is not None)
        time.sleep(pause_s)
        for signum, patience_s in () if evicted else ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
            for pid in tagged(tag):
                send(pid, signum)
            ends = time.monotonic() + patience_s
            while any(True for _ in tagged(tag)) and time.monotonic() < ends:
                time.sleep(0.1)
        while left := list(tagged(tag)):
            for pid in left:
                send(pid, signal.SIGKILL)
            process.poll()
        process.communicate()
        shutil.rmtree(disk)

    def reap(self, over: int | None = None) -> dict[str, Any]:
        """What reap.yml's own command says on a machine without memory: on a run's completion, or by the clock."""
        disk = self.folder / f"reap-{random.getrandbits(48):x}"
        disk.mkdir()
        reap = self.workflow("reap.yml")
        (step,) = [each for each in reap.steps() if each.get("name") == "Reap"]
        (named,) = _EXPRESSION.findall(step["env"]["OVER"])
        reap.expressions |= {"github.workspace": str(disk), "inputs.most || '10'": "100",
                             named.strip(): self.owner(over) if over is not None else ""}  # fmt: skip
        process = reap.start("Reap", disk, **self.env)
        out, err = process.communicate(timeout=580)
        assert "Traceback" not in err, err
        shutil.rmtree(disk)
        return {"exit": process.returncode, "out": out, "err": err}

    def standing(self) -> set[str]:
        """What the cloud bills, by the names that it was rented under."""
        return {row["label"] for row in self.ground.cloud.bill()["machines"] if row["state"] != "terminated"}

    def of(self, run: int) -> set[str]:
        """What stands of one training run."""
        return {label for label in self.standing() if f"-{self.owner(run)}-" in label}

    def rent_as_somebody_else(self, provider: str, label: str) -> None:
        """A machine of the same account that is none of this CI's runs'."""
        home, clock = Home(self.folder / "colleague").ensure(), SystemClock()
        offer_id, usd = OFFERS[provider]
        offer = Offer(provider=provider, offer_id=offer_id, gpu="L40S", count=1, vram_gb=48, usd_per_hour=Usd(usd))
        keys = LeaseKeys.create(home.root / "keys" / label, label)
        intent = Intent(label, offer, offer.usd_per_hour, "", disk_gb=20, keys=keys)
        provider_named(provider, home, clock).create(intent)

    def _is_at(self, run: int, disk: Path, moment: str) -> bool:
        if moment == "started":
            return True
        if moment == "created":
            return any(self.owner(run) in str(row["label"]) for row in self.ground.cloud.bill()["machines"])
        said = {"armed": '"kind": "armed"', "busy": '"kind": "progress"'}[moment]
        return any(said in file.read_text() for file in disk.glob(".launcher/runs/*/events.jsonl"))


def colleague_label(days: int = 30) -> str:
    """A live run's, as its launcher would write it."""
    return f"pl-dana-laptop-0ddba1-00c0ffee-{datetime.now(UTC) + timedelta(days=days):%Y%m%dT%H%M%S}"


def tagged(tag: str) -> Iterator[int]:
    """Every process of a job, in whatever session."""
    wanted = f"{TRACKING}={tag}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except OSError:
            continue


def send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
