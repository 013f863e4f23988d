"""What a rented machine bills beyond the work itself: ours against SkyPilot by itself, on one simulated cloud.

The work is the same everywhere: a file goes up, a recipe runs `WORK_S` seconds, a file comes home. By itself,
SkyPilot is `sky launch --down -i 1` with the file as a mount, then rsync, then waiting for its autodown; idle minutes
are whole, and the least is 1. Ours is create, connect, arm, put, start, get, and release with proof: by SkyPilot,
and directly at RunPod, Vast and Brev. Machines boot in the same time, and the ways take turns. Seconds are from a
machine's creation to its end in the cloud's own bill, whatever step it is billed by; ratios are those of the medians
of what there was beyond the work. Needs root. Writes bench/results/billed_overhead.json; exit 1 above a limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launcher.clock import SystemClock, iso, parse_iso
from launcher.home import Home
from launcher.hosts.base import Host, HostUnreachableError
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers.offer import Offer, Via
from launcher.providers import Intent
from launcher.providers.registry import provider_named
from launcher.providers.release import end
from launcher.providers.skypilot.lodging import Lodging
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing, command, raise_cloud, until

WORK_S = 10
BOOT_S = 5.0
PATIENCE_S = 600.0
LIMITS = {"skypilot": 0.6, "runpod": 0.2, "vast": 0.2, "brev": 0.2}
RESULT = Path(__file__).resolve().parent / "results" / "billed_overhead.json"
WORK = f"sleep {WORK_S}; mkdir -p ~/out; cp ~/data.bin ~/out/result.bin"
OFFERS = {
    "runpod": ("NVIDIA L40S/secure", "0.86", "US"),
    "vast": ("12345690", "0.60", ""),
    "brev": ("l40s-48gb.1x", "1.50", ""),
}


def main() -> int:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each way (default 3)")
    runs = parser.parse_args().runs
    if os.geteuid() != 0:
        print("left out: simulated machines are made of namespaces, which needs root")
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "data.bin").write_bytes(secrets.token_bytes(1 << 20))
        words = ("--layer", str(image.ensure()), "--set", f"quick.boot_s={BOOT_S}")
        cloud = raise_cloud(folder / "state", *words)
        try:
            # This very Python for `brev`, too, which is a script here: a shim that looks for one is not Brev's time.
            path = (cloud.env["PATH"], str(Path(sys.executable).parent), os.environ["PATH"])
            os.environ |= {**cloud.env, "PATH": os.pathsep.join(path)}
            ways: dict[str, Callable[[], None]] = {
                "alone": lambda: alone(folder),
                "skypilot": lambda: ours(folder, "runpod", "skypilot"),
                "runpod": lambda: ours(folder, "runpod", "direct"),
                "vast": lambda: ours(folder, "vast", "direct"),
                "brev": lambda: ours(folder, "brev", "direct"),
            }
            beyond: dict[str, list[float]] = {name: [] for name in ways}
            whole: dict[str, list[float]] = {name: [] for name in ways}  # with what is not billed: proofs, plans
            for _ in range(runs):
                for name, way in ways.items():
                    began = time.monotonic()
                    beyond[name].append(billed_by(cloud, way) - WORK_S)
                    whole[name].append(time.monotonic() - began)
                    print(f"{name}: {beyond[name][-1]:.0f} s (took {whole[name][-1]:.0f} s)", flush=True)
        finally:
            command(folder / "state", "down")
    middle = {name: statistics.median(seconds) for name, seconds in beyond.items()}
    ratios = {name: round(middle[name] / middle["alone"], 3) for name in LIMITS}
    for name, seconds in beyond.items():
        told = f", {ratios[name]} of SkyPilot alone (limit {LIMITS[name]})" if name in LIMITS else ""
        print(f"{name}: {middle[name]:.0f} s billed beyond the work, {[round(one) for one in seconds]}{told}")
    result = {
        "ratios": ratios, "limits": LIMITS, "runs": runs, "work_s": WORK_S, "boot_s": BOOT_S,
        "billed_beyond_work_s": {name: [round(one, 1) for one in seconds] for name, seconds in beyond.items()},
        "took_s": {name: [round(one, 1) for one in seconds] for name, seconds in whole.items()},
        "python": platform.python_version(), "cpus": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 1),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(ratios[name] <= limit for name, limit in LIMITS.items()) else 1


def billed_by(cloud: Standing, way: Callable[[], None]) -> float:
    """Seconds that the cloud has billed for the one machine that was rented meanwhile."""
    before = {row["id"] for row in cloud.bill()["machines"]}
    way()
    until(lambda: all(row["ended"] for row in cloud.bill()["machines"]), PATIENCE_S)
    (row,) = (row for row in cloud.bill()["machines"] if row["id"] not in before)
    return (parse_iso(row["ended"]) - parse_iso(row["created"])).total_seconds()


def ours(folder: Path, name: str, via: Via) -> None:
    """A lease from create to proof, as the runner has it."""
    clock, home = SystemClock(), Home(folder / f"home-{via}").ensure()
    catalog.place(home.root)
    provider = provider_named(name, home, clock, via)
    label, (offer_id, usd, region) = f"pl-bench-run-{secrets.token_hex(4)}", OFFERS[name]
    keys = LeaseKeys.create(home.root / "keys" / label)
    offer = Offer(provider=name, offer_id=offer_id, gpu="L40S", count=1, vram_gb=48, usd_per_hour=Usd(usd),
                  region=region, via=via, instance_type=offer_id)  # fmt: skip
    deadline = clock.now() + timedelta(minutes=30)
    machine = provider.create(Intent(label, offer, Usd("2"), iso(deadline), disk_gb=20, keys=keys))
    host: Host = until(lambda: provider.connect(machine, keys), PATIENCE_S)
    until(lambda: answers(host), PATIENCE_S)
    provider.arm(machine, host, deadline)
    host.put(folder / "data.bin", "data.bin")
    host.start("work", ["bash", "-c", WORK.replace("~", host.path("."))], {})
    until(lambda: host.status("work").state == "exited", PATIENCE_S)
    host.get("out/result.bin", folder / "result.bin")
    proof, _ = end(machine, label, provider, clock)
    assert proof, "no proof of release"
    provider.forget(label)


def answers(host: Host) -> bool:
    """Whether the machine's ssh server is up."""
    try:
        return host.status("nothing").state == "absent"
    except HostUnreachableError:
        return False


def alone(folder: Path) -> None:
    """SkyPilot as its documentation has it: launch with autodown, fetch, wait."""
    home, name = folder / "alone", f"alone-{secrets.token_hex(3)}"
    held = Lodging(Home(home).ensure(), "runpod", name, SystemClock())
    catalog.place(home)
    held.prepare(LeaseKeys.create(folder / "keys" / name))
    for ours_only in (".sky/plugins.yaml", ".sky/config.yaml"):
        (held.folder / ours_only).unlink()
    held.note(port=47000 + secrets.randbelow(1000))
    task = {
        "resources": {"infra": "runpod/US", "instance_type": "1x_L40S_SECURE", "disk_size": 50},
        "file_mounts": {"~/data.bin": str(folder / "data.bin")}, "run": WORK,
    }  # fmt: skip
    (held.folder / "task.yaml").write_text(json.dumps(task), encoding="utf-8")
    env = held.environment()
    sky = str(Path(sys.executable).with_name("sky"))
    try:
        launch = [sky, "launch", "-y", "-c", name, "--down", "-i", "1", "task.yaml"]
        done = subprocess.run(launch, cwd=held.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        sky_home = held.folder / ".sky" / "generated"  # ssh takes ~ for another home than SkyPilot does
        shell = f"ssh -F {sky_home}/ssh/{name} -i {sky_home}/ssh-keys/{name}.key"
        fetch = ["rsync", "-a", "-e", shell, f"{name}:out/", str(folder / "fetched")]
        subprocess.run(fetch, env=env, check=True)
        ends = time.monotonic() + PATIENCE_S
        while json.loads(_bill(env))["machines"][-1]["ended"] is None:
            assert time.monotonic() < ends, "its autodown did not come"
            time.sleep(0.5)
    finally:
        held.remove()


def _bill(env: dict[str, str]) -> bytes:
    from urllib.request import urlopen

    with urlopen(f"{env['RUNPOD_API_BASE_URL']}/_bill", timeout=10) as answer:
        said: bytes = answer.read()
    return said


if __name__ == "__main__":
    sys.exit(main())
