"""A ground where runs rent machines of the simulated cloud: real ssh hosts, the stand-in recipe on them, its bill."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from fast import HERE, FastGround
from jobs import Launcher

from launcher.home import Home
from launcher.ledger import Ledger
from launcher.money import Usd
from tests.cloud.conftest import Standing, command, raise_cloud

STEP_S = {"runpod": 2, "vast": 2, "brev": 61}  # a billing step, and a second for the moment at which it was asked
BUDGETS = """default: rented
budgets:
  rented: {per_run_usd: 5, per_day_usd: 50, per_month_usd: 500, max_usd_per_hour: 2.5, concurrent_runs: 8,
           providers: [runpod, vast, brev], approval: [typed, preapproved]}
"""
WRAPPER = """#!/bin/sh
# What `setup` asks of an image's Python, answered for the stand-in; everything else is the stand-in itself.
case "$*" in *find_spec*) exit 0;; *sys.prefix*) echo {folder}; exit 0;; esac
exec {python} {recipe} "$@"
"""


def image(folder: Path) -> tuple[Path, list[Path]]:
    """An image that has the recipes' environment: (a layer with the stand-in as its `python`, what it needs of here).

    The stand-in is found as an environment that an image brings, so `setup` of sky/*.yaml runs as it is.
    """
    env, prefix = folder / "environment", Path(sys.prefix).resolve()
    wrapper = WRAPPER.format(folder=env, python=prefix / "bin" / "python", recipe=HERE / "fast_recipe.py")
    for place in (env / "bin" / "python", folder / "layer" / "usr" / "local" / "bin" / "python"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(wrapper, encoding="utf-8")
        place.chmod(0o755)
    return folder / "layer", [env, prefix, Path(sys.base_prefix).resolve(), HERE]


@dataclass
class RentedGround:
    """A cloud that stands, a launcher that knows its keys, and jobs for both."""

    fast: FastGround
    launcher: Launcher
    cloud: Standing

    def __post_init__(self) -> None:
        (self.fast.folder / "budgets.yaml").write_text(BUDGETS, encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        """What every process of it needs: the cloud's addresses and keys, its `brev` first on the path."""
        path = f"{self.cloud.env['PATH']}{os.pathsep}{os.environ['PATH']}"
        return {**self.cloud.env, "PATH": path, "CI": "", "LAUNCHER_RECIPE_PYTHON": str(self.fast.python)}

    def job(self, providers: str, via: str = "direct", *, steps: int = 3, name: str = "job.yaml", text: str = "",
            patience_s: float | None = None, **nature: Any) -> Path:  # fmt: skip
        patience = f", provision_timeout_s: {patience_s}" if patience_s else ""
        resources = f"resources: {{providers: [{providers}], via: {via}{patience}}}\n"
        return self.fast.job(steps=steps, name=name, text=resources + text, trace="/tmp/trace.jsonl", **nature)

    def start(self, *args: object, **env: str) -> Any:
        return self.launcher.start(*args, "--json", **{**self.env, **env})

    def run(self, *args: object, timeout_s: float = 400, **env: str) -> tuple[int, dict[str, Any], str]:
        """A verb without a terminal, its input closed: (exit code, its JSON object, stderr)."""
        out, err = (process := self.start(*args, **env)).communicate(timeout=timeout_s)
        assert "Traceback" not in err, err
        assert len(out.splitlines()) == 1, f"stdout must be one object:\n{out}\n{err}"
        return process.returncode, json.loads(out), err

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(Home(self.launcher.home))

    def machines(self) -> list[dict[str, Any]]:
        """The bill's rows of the machines that this ground's launcher has had, oldest first."""
        labels = {lease.label for lease in self.ledger.leases()}
        return [row for row in self.cloud.bill()["machines"] if row["label"] in labels]

    def billed(self) -> Decimal:
        """What the cloud charges for them so far."""
        return sum((Decimal(str(row["usd"])) for row in self.machines()), Decimal(0))

    def assert_all_released(self, run: str, ceiling: str, clock_s: int = 0, *, told: bool = True) -> None:
        """Nothing bills, the charge is the bill within one billing step a machine, and both are under the ceiling.

        `clock_s` more where this computer's clock was wrong: the moments of a provider are told in whole seconds.
        Not `told`: whoever released may never have heard since when the machine bills, and charges from the ask on.
        """
        alive = [row for row in self.cloud.bill()["machines"] if row["state"] != "terminated"]
        assert alive == []
        assert {str(lease.state) for lease in self.ledger.leases(run)} == {"released"}
        charged, billed = self.ledger.spent(run), self.billed()
        step = sum((Decimal(str(row["usd_per_hour"])) * (STEP_S[row["provider"]] + clock_s) / 3600
                    for row in self.machines()), Decimal(0))  # fmt: skip
        assert billed - charged <= step, (charged, billed, step)
        assert charged - billed <= step or not told, (charged, billed, step)
        assert max(charged, billed) <= Usd(ceiling)
        keys = self.launcher.home / "runs" / run / "keys"
        assert not list(keys.rglob("key"))


@contextmanager
def standing_cloud(folder: Path, *words: str) -> Iterator[Standing]:
    """Such a cloud, ended with the block."""
    held = raise_with_image(folder / "state", folder, *words)
    try:
        yield held
    finally:
        lower(held)


def raise_with_image(state: Path, folder: Path, *words: str) -> Standing:
    """A cloud whose machines have the stand-in's environment."""
    layer, binds = image(folder)
    bound = [part for bind in binds for part in ("--bind", str(bind))]
    return raise_cloud(state, "--layer", str(layer), *bound, *words)


def lower(standing: Standing) -> None:
    done = command(standing.state, "down")
    assert done.returncode == 0, done.stdout + done.stderr
