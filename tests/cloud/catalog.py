"""SkyPilot's price catalogs of the simulated RunPod, so that nothing has to be downloaded for a launch.

Columns as in github.com/skypilot-org/skypilot-catalog, catalogs/v8; a file without its `.meta` checksum is taken for
the user's own, and is never renewed (sky/catalog/common.py of 0.14.1).
"""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any

from tests.cloud.cloud import SCENARIOS

NAMES = {"RTX 4090": "RTX4090", "L40S": "L40S", "A40": "A40", "A100 PCIe": "A100-80GB"}  # RunPod's, SkyPilot's
REGIONS = ("US", "CA")  # two, so that a launch whose region is not pinned has somewhere to go on
VMS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "Region", "SpotPrice", "Price",
       "AvailabilityZone", "GpuInfo")  # fmt: skip


def place(root: Path) -> None:
    """Write them where a launcher with its home at `root` keeps SkyPilot's catalogs."""
    folder = root / "skypilot" / ".shared" / "catalogs" / "v8"
    gpus = tomllib.loads(SCENARIOS.read_text(encoding="utf-8"))["runpod"]["gpus"]
    _write(folder / "runpod" / "vms.csv", VMS, [row for gpu in gpus for row in _rows(gpu)])
    names = [(NAMES[gpu["name"]], gpu["vram_gb"]) for gpu in gpus]
    clouds = [(name, "['RunPod']") for name, _ in names]
    _write(folder / "common" / "accelerators.csv", ("AcceleratorName", "Clouds"), clouds)
    _write(folder / "common" / "metadata.csv", ("GPU", "MemoryGB"), names)


def _rows(gpu: dict[str, Any]) -> list[tuple[Any, ...]]:
    name, mib = NAMES[gpu["name"]], gpu["vram_gb"] * 1024
    info = {"Gpus": [{"Name": gpu["name"], "Manufacturer": "Nvidia", "Count": 1, "MemoryInfo": {"SizeInMiB": mib}}],
            "TotalGpuMemoryInMiB": mib}  # fmt: skip
    return [
        (f"1x_{name}_{kind.upper()}", name, 1.0, 8.0, 62.0, region, "", gpu[f"{kind}_usd"], f"{region}-1", str(info))
        for kind in ("secure", "community")
        for region in REGIONS
    ]


def _write(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
