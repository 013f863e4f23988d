"""A merged model is made here of the adapter, where the base is: gigabytes are not paid for by the hour.

An adapter of some megabytes comes home first. Where fetching the merged model would take longer than making it, and
this computer has the base and the recipes' environment, `recipes.merge` makes it, while the machine still waits: what
is made counts only when its weights are, to the bit, those that the training run saved there; else it is fetched.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from launcher.clock import Clock
from launcher.environment import recipe_python
from launcher.errors import LauncherError
from launcher.estimate.phases import downlink_mbps, line_of
from launcher.failpoints import effect
from launcher.local_recipe import run_here
from launcher.plan import Plan
from launcher.runner.boarding import Aboard
from launcher.runner.collect import Make
from launcher.runner.ending import in_words
from launcher.runner.mirror import Mirror
from launcher.runner.staging import base_of, is_rented
from launcher.runner.steps import TUNED
from recipes.contract import Artifact
from recipes.merge.spec import MERGED
from recipes.methods.adapter import ADAPTER

#: Less than that is fetched: a merge opens a model and writes one. Assumed, not measured on a model of 0.6B.
PAYS_S = 60.0


def maker(aboard: Aboard, plan: Plan, mirror: Mirror, clock: Clock) -> Make:
    """What makes the model at home, where that pays, instead of fetching it; the adapter is there by then."""

    def make(artifact: Artifact, target: Path) -> bool:
        base, adapter = base_of(plan), target.parent / ADAPTER
        if plan.recipe != "finetune":  # another base than ours was learned on
            return False
        if artifact.path != TUNED or base is None or not base.is_file() or not adapter.is_file():
            return False
        asked = {"base": str(base), "adapter": str(adapter), "trust_base": plan.spec.get("trust_base")}
        try:
            fetching_s = artifact.bytes * 8e-6 / min(downlink_mbps(), line_of(aboard.candidate.offer).up)
            if fetching_s < PAYS_S or not is_rented(aboard.host):
                return False
            recipe_python()
            mirror.say("note", message=f"merging here: fetching {artifact.path} would take {fetching_s:.0f} s")
            _merge(asked, target, fetching_s / 2, clock)  # fetching it after all must not come too late
        except (LauncherError, OSError) as error:
            mirror.say("note", message=f"{artifact.path} is fetched: it could not be merged here: {in_words(error)}")
            return False
        return True

    return make


@effect("artifact.merge")
def _merge(asked: dict[str, Any], target: Path, within_s: float, clock: Clock) -> None:
    out = target.with_name(f".{target.name}.merging")
    shutil.rmtree(out, ignore_errors=True)
    try:
        result = run_here("merge", asked, out, clock, lambda event: None, within_s=within_s)
        if not result["metrics"]["as_trained"]:
            raise LauncherError("its weights differ from those that were trained")
        (out / MERGED).replace(target)
    finally:
        shutil.rmtree(out, ignore_errors=True)
