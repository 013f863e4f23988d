"""`launcher render`: what it prints is a task that SkyPilot itself takes, on exactly one instance type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import yaml

from launcher.remote import run_of, setup_of

READ = """
import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
(wants,) = task.resources
stop = wants.autostop_config
print(json.dumps({"type": wants.instance_type, "cloud": str(wants.cloud).lower(), "spot": wants.use_spot,
                  "image": wants.extract_docker_image(), "labels": wants.labels, "name": task.name,
                  "stop": [stop.idle_minutes, stop.down, stop.wait_for.value], "run": task.run, "setup": task.setup}))
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job over a few seconds of silence, and the prices of three machines."""
    rows = []
    for index in range(8):
        soundfile.write(tmp_path / f"{index}.wav", [index / 10] * 16000, 16000)
        rows.append(
            {"audio_filepath": f"{index}.wav", "duration": 1.0, "text": f"word {index}", "voice_id": str(index)}
        )
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.yaml").write_text(
        "recipe: finetune\nspec: {base: nvidia/parakeet-tdt-0.6b-v2, max_steps: 20}\ndata: {manifest: m.jsonl}\n"
        "resources: {providers: [runpod, brev, lambda]}\n"
    )
    (tmp_path / "budgets.yaml").write_text(
        "default: any\nbudgets: {any: {per_run_usd: 5, per_day_usd: 5, per_month_usd: 5, max_usd_per_hour: 2, "
        "providers: [local, runpod, brev, skypilot], allow_unproven: true}}\n"
    )
    (tmp_path / "offers.json").write_text(json.dumps([
        {"provider": "runpod", "offer_id": "NVIDIA L40S/secure", "instance_type": "NVIDIA L40S", "gpu": "L40S",
         "count": 1, "vram_gb": 48, "usd_per_hour": "0.86", "trust": "secure", "region": "US"},
        {"provider": "brev", "offer_id": "l40s.1x", "instance_type": "l40s.1x", "gpu": "L40S", "count": 1,
         "vram_gb": 48, "usd_per_hour": "1.50", "trust": "secure"},
        {"provider": "lambda", "offer_id": "lambda/gpu_1x_a10/us-east-1", "instance_type": "gpu_1x_a10", "gpu": "A10",
         "count": 1, "vram_gb": 24, "usd_per_hour": "0.75", "trust": "secure", "region": "us-east-1",
         "via": "skypilot"},
    ]))  # fmt: skip
    return tmp_path / "job.yaml"


def render(job: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [
        "render",
        str(job),
        "--offers",
        str(job.with_name("offers.json")),
        "--home",
        str(job.with_name("home")),
        *more,
    ]
    return subprocess.run([sys.executable, "-m", "launcher", *words], capture_output=True, text=True, check=False)


def as_skypilot_reads(text: str, folder: Path) -> dict[str, object]:
    path = folder / "task.yaml"
    path.write_text(text)
    env = {"HOME": str(folder), "PATH": os.environ["PATH"], "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    read = [sys.executable, "-c", READ, str(path)]
    said = subprocess.run(read, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert said.returncode == 0, said.stderr
    held: dict[str, object] = json.loads(said.stdout)
    return held


def test_the_task_is_pinned_to_the_plans_machine_and_ends_at_its_deadline(job: Path) -> None:
    done = render(job, "--provider", "runpod")
    assert done.returncode == 0, done.stderr
    held = as_skypilot_reads(done.stdout, job.parent)
    assert (held["cloud"], held["type"], held["spot"]) == ("runpod", "1x_L40S_SECURE", False)
    assert "any_of" not in done.stdout
    assert (held["run"], held["setup"]) == (run_of("finetune"), setup_of("finetune"))
    told = json.loads(render(job, "--provider", "runpod", "--json").stdout)
    assert told["task"] == yaml.safe_load(told["yaml"])
    minutes, down, wait_for = held["stop"]  # type: ignore[misc]
    plan = [sys.executable, "-m", "launcher", "plan", str(job), "--offers", str(job.with_name("offers.json")),
            "--home", str(job.with_name("home")), "--provider", "runpod", "--json"]  # fmt: skip
    planned = json.loads(subprocess.run(plan, capture_output=True, text=True, check=True).stdout)
    assert (minutes, down, wait_for) == (int(planned["deadline_h"] * 60), True, "none")
    assert held["labels"]["plan"] and held["labels"]["parakeet-launcher"] == "finetune"  # type: ignore[index]


def test_a_cloud_that_only_skypilot_reaches_is_pinned_to_its_region(job: Path) -> None:
    done = render(job, "--provider", "lambda")
    assert done.returncode == 0, done.stderr
    held = as_skypilot_reads(done.stdout, job.parent)
    assert (held["cloud"], held["type"]) == ("lambda", "gpu_1x_a10")
    assert yaml.safe_load(done.stdout)["resources"]["infra"] == "lambda/us-east-1"


def test_a_choice_that_skypilot_does_not_rent_is_refused_with_the_way_to_another(job: Path) -> None:
    done = render(job, "--provider", "brev")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not rented through SkyPilot: brev L40S" in done.stderr
    assert "--provider runpod" in done.stderr
