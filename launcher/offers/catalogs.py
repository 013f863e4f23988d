"""A process of its own that reads SkyPilot's and gpuhunt's catalogs: `python -m launcher.offers.catalogs CLOUD…`.

Importing SkyPilot takes seconds and its downloads know no time-out, so both stay out of the launcher's process. One
JSON object a line on stdout: {"from", "cloud", "as_of", "rows"} or {"from", "cloud", "error"}; a row is
[instance type, region, GPU, count, GB of one GPU, dollars an hour].
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# gpuhunt's names of clouds that SkyPilot rents at. Its rows of vastai and runpod are what our own sources ask first
# hand, and would stand there twice.
GPUHUNT = {
    "aws": "aws", "azure": "azure", "gcp": "gcp", "lambdalabs": "lambda", "nebius": "nebius", "oci": "oci",
    "verda": "verda",
}  # fmt: skip
LONGEST_S = 120
Row = tuple[str, str, str, float, float | None, float]


def main(clouds: list[str]) -> None:
    """Print what both catalogs hold of these clouds, as it comes."""
    signal.alarm(LONGEST_S)  # should whoever asked be killed: a download of theirs may hang for ever
    # What a library prints by itself must not stand among our lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    speaking = threading.Lock()

    def say(**line: Any) -> None:
        with speaking:
            lines.write(json.dumps(line, allow_nan=False) + "\n")
            lines.flush()

    beside = threading.Thread(target=_gpuhunt, args=(clouds, say), daemon=True)
    beside.start()
    for cloud in sorted(clouds, key=lambda name: not _sky_file(name).exists()):  # what is here already, first
        try:
            rows = _sky_rows(cloud)
        except Exception as error:  # noqa: BLE001 - one cloud's catalog must not hide the others'
            say(**{"from": "sky"}, cloud=cloud, error=_words(error))
        else:
            say(**{"from": "sky"}, cloud=cloud, as_of=_written_at(_sky_file(cloud)), rows=rows)
    beside.join()


def _sky_rows(cloud: str) -> list[Row]:
    from sky import catalog

    held = catalog.list_accelerators(gpus_only=True, clouds=[cloud], all_regions=True)
    return [
        (info.instance_type, str(info.region), info.accelerator_name, float(info.accelerator_count),
         _finite(info.device_memory), float(info.price))
        for infos in held.values() for info in infos
        if _finite(info.price) is not None and str(info.instance_type)[:1] not in ("", "(")  # "(attachable)"
    ]  # fmt: skip


def _sky_file(cloud: str) -> Path:
    """Where SkyPilot keeps its catalog of a cloud (sky/catalog/common.py)."""
    root = Path(os.environ.get("SKY_RUNTIME_DIR") or Path.home()).expanduser()
    found = sorted((root / ".sky" / "catalogs").glob(f"v*/{cloud}/vms.csv"))
    return found[-1] if found else root / ".sky" / "catalogs" / cloud / "vms.csv"


def _gpuhunt(clouds: list[str], say: Any) -> None:
    wanted = {name: cloud for name, cloud in GPUHUNT.items() if cloud in clouds}
    if not wanted:
        return
    try:
        from gpuhunt import Catalog

        catalog = Catalog(balance_resources=False, auto_reload=False)
        folder = os.environ.get("GPUHUNT_CATALOG_DIR")
        if not folder:
            catalog.load()
        for name, cloud in wanted.items():
            with contextlib.suppress(FileNotFoundError):  # a folder need not hold every cloud
                items = catalog.query(provider=name, gpu_vendor="nvidia", min_gpu_count=1, spot=False)
                as_of = _written_at(Path(folder) / f"{name}.csv") if folder else _version_date(catalog, name)
                say(**{"from": "gpuhunt"}, cloud=cloud, as_of=as_of, rows=_gpuhunt_rows(items))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, SkyPilot's own catalogs still count
        say(**{"from": "gpuhunt"}, cloud="", error=_words(error))


def _gpuhunt_rows(items: Iterable[Any]) -> list[Row]:
    return [
        (item.instance_name, item.location, item.gpu_name or "", float(item.gpu_count), _finite(item.gpu_memory),
         float(item.price))
        for item in items if not item.flags and _finite(item.price) is not None
    ]  # fmt: skip


def _version_date(catalog: Any, name: str) -> str:
    """The day a gpuhunt catalog was collected: its version begins with it."""
    held = catalog.catalog.get(name)
    day = re.match(r"(\d{4})-?(\d{2})-?(\d{2})", held.version if held else "")
    return f"{day[1]}-{day[2]}-{day[3]}T00:00:00Z" if day else ""


def _written_at(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except OSError:
        return ""


def _finite(value: Any) -> float | None:
    try:
        held = float(value)
    except (TypeError, ValueError):
        return None
    return held if math.isfinite(held) else None


def _words(error: BaseException) -> str:
    name, text = type(error).__name__, " ".join(str(error).split())
    unreached = isinstance(error, OSError) and name not in ("HTTPError", "FileNotFoundError")
    return "cannot be reached" if unreached else f"{name}: {text}"[:200]


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # no library's thread keeps this process
