"""Where cases are run: one simulated cloud, and homes of which each case gets a copy of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from queue import LifoQueue
from typing import Any

from tests.cloud import catalog, image
from tests.cloud.conftest import Standing
from tests.faults.program import Program

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "launcher" / "run"))
from fast import FastGround, make_ground  # noqa: E402
from rented import BUDGETS, lower, raise_with_image  # noqa: E402

from launcher.clock import SystemClock  # noqa: E402
from launcher.home import Home  # noqa: E402
from launcher.ledger import Lease, Ledger  # noqa: E402
from launcher.providers.runpod_api import carries  # noqa: E402
from launcher.providers.skypilot.lodging import Lodging  # noqa: E402

PLACES = 8  # cases that have a machine at one provider at once, each on an offer of its own where offers are single
_OFFERS = ", ".join(
    f"{{id = {20000000 + n}, gpu = 'RTX 4090', gpu_ram_mb = 24564, usd = '0.28', disk_usd_gb_month = '0.15', "
    f"geolocation = 'Saxony, DE', reliability = 0.9962, inet_down = 914.7, inet_up = 823.4, hosting_type = 0, "
    f"dlperf = 98.5}}"
    for n in range(PLACES)
)
#: The first row of the simulated market, as often as needed; and the right that a box's own key may have there.
VAST = ("--set", f"vast.offers = [{_OFFERS}]", "--set", "vast.self_destroy=true")
SKYPILOT = "skypilot"  # where cases name a provider: RunPod, rented through it
SHORT_S = 75.0  # a deadline that can be watched; a whole run takes ten seconds on a quiet machine


@dataclass(frozen=True)
class Copy:
    """One case's own launcher: its home, its run, what that may cost."""

    field: Field
    root: Path
    run: str  # empty: whatever this launcher runs
    approved: Decimal | None  # USD; None: what its ledger says that it reserved
    provider: str
    place: int

    @property
    def ceiling(self) -> Decimal:
        """The most that all of it may cost."""
        if self.approved is not None:
            return self.approved
        return sum((held.amount_usd for held in self.ledger.reservations()), Decimal(0))

    @property
    def cloud(self) -> str:
        """The provider whose machine it is."""
        return "runpod" if self.provider == SKYPILOT else self.provider

    @property
    def home(self) -> Home:
        return Home(self.root)

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.home)

    def leases(self) -> list[Lease]:
        return self.ledger.leases(self.run or None)

    def charged(self) -> Decimal:
        """By its own books."""
        runs = [self.run] if self.run else [run.run for run in self.ledger.runs()]
        return sum((self.ledger.spent(run) for run in runs), Decimal(0))

    def lodgings(self) -> list[Lodging]:
        """What SkyPilot has here for each lease: its home, and whatever runs in it."""
        if self.provider != SKYPILOT:
            return []
        return [Lodging(self.home, self.cloud, lease.label, SystemClock()) for lease in self.leases()]

    def machines(self) -> list[dict[str, Any]]:
        """The bill's rows of every machine that this home's launcher has had: the cloud's word, by the label."""
        labels = [lease.label for lease in self.leases()]
        rows = self.field.cloud.bill()["machines"]
        return [row for row in rows if any(carries(row["label"], label) for label in labels)]

    def alive(self) -> list[str]:
        return [str(row["id"]) for row in self.machines() if row["state"] != "terminated"]

    def billed(self) -> Decimal:
        return sum((Decimal(str(row["usd"])) for row in self.machines()), Decimal(0))

    def program(self, module: str, *words: str, **env: str) -> Program:
        """`python -m MODULE …` as this launcher, in a session of its own."""
        held = {**self.field.env, "LAUNCHER_HOME": str(self.root), **env}
        return Program(module, words, held, self.root.parent)

    def verb(self, *words: str, timeout_s: float = 300, **env: str) -> tuple[int, dict[str, Any], str]:
        """A verb with --json: (exit code, its object, stderr)."""
        process = self.program("launcher", "--home", str(self.root), *words, "--json", **env)
        out, err = process.communicate(timeout=timeout_s)
        lines = out.splitlines()
        return process.returncode, json.loads(lines[-1]) if lines else {}, err


class Field:
    """A cloud that stands for many cases, in a folder that holds all of it."""

    def __init__(self, folder: Path, *words: str, skypilot: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        asked = ["git", "-C", str(REPO), "rev-parse", "--short", "HEAD"]
        self.commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        self.fast: FastGround = make_ground(folder / "ground")
        (self.fast.folder / "budgets.yaml").write_text(BUDGETS, encoding="utf-8")
        # SkyPilot sets a machine up by itself: its image has what that would download.
        layer = ("--layer", str(image.ensure())) if skypilot else ()
        self.cloud: Standing = raise_with_image(folder / "state", folder, "--seed", "5", *VAST, *layer, *words)
        self._templates: dict[tuple[Any, ...], tuple[Path, str, Decimal]] = {}
        self._count = 0
        self._jobs: dict[tuple[str, str], Path] = {}
        self._turn, self._turn_of_jobs = threading.Lock(), threading.Lock()
        self._places: dict[str, LifoQueue[int]] = defaultdict(LifoQueue)

    def close(self) -> None:
        lower(self.cloud)

    @property
    def env(self) -> dict[str, str]:
        """What every process of it needs; nothing of ours that a shell around it may have set."""
        held = {name: value for name, value in os.environ.items() if not name.startswith("LAUNCHER_")}
        # This very Python for `#!/usr/bin/env python3`, too: a shim that looks for one costs more than it runs.
        path = os.pathsep.join([self.cloud.env["PATH"], str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**held, **self.cloud.env, "PATH": path, "CI": "", "PYTHONPATH": str(REPO),
                "LAUNCHER_RECIPE_PYTHON": str(self.fast.python), "LAUNCHER_LINE_PATIENCE_S": "20"}  # fmt: skip

    def job(self, provider: str, recipe: str) -> Path:
        """A job file: `finetune`, which measures, trains and measures again; or `evaluate`, which measures once."""
        with self._turn_of_jobs:
            key = (provider, recipe)
            if key not in self._jobs:
                self._jobs[key] = self._write_job(provider, recipe)
            return self._jobs[key]

    def _write_job(self, provider: str, recipe: str) -> Path:
        cloud, via = ("runpod", "skypilot") if provider == SKYPILOT else (provider, "direct")
        resources = f"resources: {{providers: [{cloud}], via: {via}}}\n"
        job = self.fast.job(3, resources, f"{provider}-{recipe}.yaml", trace="/tmp/trace.jsonl")
        if recipe == "evaluate":
            text = job.read_text(encoding="utf-8").replace("recipe: finetune", "recipe: evaluate")
            job.write_text(text.replace("base:", "model:").replace(", max_steps: 3", ""), encoding="utf-8")
        return job

    def copy(self, provider: str, recipe: str = "finetune", seconds: float | None = None) -> Copy:
        """A launcher of its own for one case; waits for a free place. Give it back with `leave`."""
        with self._turn:
            if provider not in self._places:
                for number in reversed(range(PLACES)):
                    self._places[provider].put(number)
        place = self._places[provider].get()
        with self._turn:
            root, run, ceiling = self._template(provider, recipe, place if provider == "vast" else 0, seconds)
            self._count += 1
            mine = self.folder / "homes" / f"{self._count}"
        shutil.copytree(root, mine / "home", symlinks=True)
        return Copy(self, mine / "home", run, ceiling, provider, place)

    def empty(self, provider: str) -> Copy:
        """A launcher that has run nothing yet."""
        with self._turn:
            self._count += 1
            mine = self.folder / "homes" / f"{self._count}"
        (mine / "home").mkdir(parents=True)
        return Copy(self, mine / "home", "", None, provider, -1)

    def leave(self, copy: Copy) -> None:
        """The case is over: its place is free, its folder goes."""
        if copy.place >= 0:
            self._places[copy.provider].put(copy.place)
        for lodging in copy.lodgings():
            lodging.remove()
        shutil.rmtree(copy.root.parent, ignore_errors=True)

    def _template(self, provider: str, recipe: str, nth: int, seconds: float | None) -> tuple[Path, str, Decimal]:
        """A home whose run is reserved: made once, copied for each case."""
        key = (provider, recipe, nth, seconds)
        if key not in self._templates:
            root = self.folder / "templates" / "-".join(str(part) for part in key)
            if provider == SKYPILOT:
                catalog.place(root)
            words = [str(root), str(self.job(provider, recipe)), str(nth), *([str(seconds)] if seconds else [])]
            done = subprocess.run(
                [sys.executable, "-m", "tests.faults.template", *words], cwd=REPO, env=self.env, text=True,
                capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            run, ceiling = done.stdout.split()
            self._templates[key] = (root, run, Decimal(ceiling))
        return self._templates[key]


def until(what: Callable[[], Any], timeout_s: float, pause_s: float = 0.5) -> Any:
    """What `what` says, once it says something; None when it does not in time."""
    ends = time.monotonic() + timeout_s
    while not (said := what()) and time.monotonic() < ends:
        time.sleep(pause_s)
    return said
