"""Start-up: `launcher --help` against the bare start of the same Python. At most 6 times, or exit 1.

Both are started from the same virtual environment, in turn, so that a busy moment of the machine meets both;
the ratio is that of the medians. The baseline is the environment's own interpreter file, never a shim on PATH
(pyenv's adds 70 ms and would flatter the ratio).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

LIMIT = 6.0
RESULT = Path(__file__).resolve().parent / "results" / "startup.json"


def seconds(command: list[str]) -> float:
    """Wall seconds of one run of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    return time.perf_counter() - start


def main() -> int:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30, help="alternating runs of each (default 30)")
    runs = max(20, parser.parse_args().runs)
    bin_dir = Path(sys.prefix) / "bin"
    launcher = bin_dir / "launcher"
    if not launcher.exists():
        sys.stderr.write(f"no {launcher}: build the environment (make env), then .venv/bin/python {__file__}\n")
        return 2
    bare = [str(bin_dir / "python"), "-c", "pass"]
    started = [str(launcher), "--help"]
    for command in (bare, started):  # bytecode and file cache
        seconds(command)
    times = [(seconds(bare), seconds(started)) for _ in range(runs)]
    bare_s, launcher_s = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = launcher_s / bare_s
    result = {
        "ratio": round(ratio, 2),
        "limit": LIMIT,
        "bare_python_ms": round(bare_s * 1000, 2),
        "launcher_help_ms": round(launcher_s * 1000, 2),
        "runs": runs,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"launcher --help {launcher_s * 1e3:.1f} ms, bare {bare_s * 1e3:.1f} ms: {ratio:.2f}x, limit {LIMIT:g}x")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
