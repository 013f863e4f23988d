"""Several machines as one job: where that is possible, what it costs, and what is said where it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from offered import LOCAL_GPU, job_of, offer, plan_of, purse

from launcher.errors import RefusedError
from launcher.plan import Plan
from launcher.prepare import Prepared
from launcher.providers.traits import NO_MANY_NODES, SKYPILOT_CLOUDS

#: In a process of its own, because the launcher's never imports sky: the clouds that refuse several nodes.
ASK = """
import json
from sky.clouds import cloud
from sky.utils import registry
feature = cloud.CloudImplementationFeatures.MULTI_NODE
clouds = {name: registry.CLOUD_REGISTRY.from_str(name) for name in registry.CLOUD_REGISTRY}
told = {name: getattr(one, "_CLOUD_UNSUPPORTED_FEATURES", ()) for name, one in clouds.items()}
print(json.dumps([name for name, features in told.items() if feature in features]))
print(json.dumps(list(clouds)))
"""


def planned(folder: Path, prepared: Prepared, nodes: int) -> Plan:
    """Rented at Lambda, which SkyPilot alone reaches and which rents several machines as one."""
    job = job_of(folder, f"resources: {{providers: [lambda], nodes: {nodes}}}\n")
    made = offer("lambda", "0.60", disk_usd_per_gb_month="0.20", usd_per_gb_up="0.01", usd_per_gb_down="0.02")
    money = purse(providers=["lambda"], allow_unproven=True, per_run_usd="20", max_usd_per_hour="5")
    return plan_of(job, prepared, [made], money)


def test_several_machines_cost_as_many_an_hour_and_what_comes_home_comes_once(
    folder: Path, prepared: Prepared
) -> None:
    one, three = planned(folder, prepared, 1), planned(folder, prepared, 3)
    assert (one.nodes, three.nodes, three.choice.offer.nodes) == (1, 3, 3)
    assert three.choice.offer.usd_per_hour == 3 * one.choice.offer.usd_per_hour
    there, alone = three.choice.estimate, one.choice.estimate
    for same in ("provision", "image", "upload", "baseline", "evaluate", "collect"):  # only training is shared
        assert there.phases[same] == alone.phases[same]
    assert there.phases["train"] != alone.phases["train"]
    assert there.transfer_up_gb == alone.transfer_up_gb
    per_second = [
        (float(plan.choice.usd_p50) - plan.choice.estimate.transfer_up_gb * float(plan.choice.offer.usd_per_gb_up)
         - plan.choice.estimate.transfer_down_gb * float(plan.choice.offer.usd_per_gb_down))
        / plan.choice.estimate.seconds_p50
        for plan in (one, three)
    ]  # fmt: skip
    assert per_second[1] == pytest.approx(3 * per_second[0], rel=0.05)  # a longer run fails a little more often
    assert three.choice.ceiling.machine_usd >= 3 * one.choice.ceiling.machine_usd * 99 / 100
    assert three.allowed.max_usd_per_hour >= three.choice.offer.usd_per_hour
    assert float(three.idle_night_usd) == pytest.approx(3 * float(one.idle_night_usd), rel=1e-5)
    assert float(three.worst_case_usd) == pytest.approx(3 * float(one.worst_case_usd), rel=1e-5)
    assert any("3 machines train as one: all are paid" in words for words in three.choice.estimate.choices)


def test_their_rate_together_is_held_to_the_budgets(folder: Path, prepared: Prepared) -> None:
    job = job_of(folder, "resources: {providers: [lambda], nodes: 3}\n")
    money = purse(providers=["lambda"], allow_unproven=True, per_run_usd="20", max_usd_per_hour="1.79")
    with pytest.raises(RefusedError, match="dearer than the budget's"):
        plan_of(job, prepared, [offer("lambda", "0.60")], money)


def test_where_nobody_rents_several_as_one_the_plan_says_what_to_take_instead(
    folder: Path, prepared: Prepared
) -> None:
    job = job_of(folder, "resources: {nodes: 2}\n")
    with pytest.raises(RefusedError) as refused:
        plan_of(job, prepared, [LOCAL_GPU, offer("vast"), offer("runpod"), offer("brev")])
    assert "rents no 2 machines as one: take 2 GPUs in one machine (nodes: 1)" in refused.value.problem
    assert "nodes: 1" in refused.value.fix


def test_skypilot_itself_says_which_clouds_rent_several_as_one(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    asked = subprocess.run([sys.executable, "-P", "-c", ASK], env=env, cwd=tmp_path, capture_output=True, text=True,
                           check=True)  # fmt: skip
    without, known = (json.loads(line) for line in asked.stdout.splitlines()[-2:])
    assert sorted(without) == sorted(NO_MANY_NODES)
    assert set(SKYPILOT_CLOUDS) <= set(known)
