"""`manifest check` of 100,000 rows against the least that could be done: json.loads and os.stat of each row.

    python bench/manifest_check.py [--rows N] [--repeat N]

The rows name real FLAC and WAV files in a temporary folder (half each, 0.5 s), carry 20 words, a speaker, a term and
a category, and are sound: faults cost less than the headers they spare. The two run in turn in one process; the
ratio of the medians is what counts. Writes bench/results/manifest_check.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launcher.data import check_manifest

RESULT = Path(__file__).resolve().parent / "results" / "manifest_check.json"
LIMIT = 10.0


def corpus(folder: Path, rows: int) -> Path:
    """A manifest of `rows` rows over as many files."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    noise = np.random.default_rng(1)
    lines = []
    for index in range(rows):
        kind = ("flac", "wav")[index % 2]
        path = folder / f"{index % 256:02x}" / f"{index:06}.{kind}"
        path.parent.mkdir(exist_ok=True)
        held = io.BytesIO()
        soundfile.write(held, noise.integers(-9, 9, 8_000, dtype=np.int16), 16_000, format=kind.upper())
        path.write_bytes(held.getvalue())
        said = draw.choices(words, k=20)
        lines.append(json.dumps({
            "audio_filepath": str(path.relative_to(folder)), "text": " ".join(said)[:19], "duration": 0.5,
            "voice_id": f"v{index % 50}", "term": said[0], "entity_category": "drug", "noise_level": "clean",
        }))  # fmt: skip
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def bare(manifest: Path) -> None:
    """The baseline: parse each row, see that its file is there."""
    for line in manifest.read_text().splitlines():
        os.stat(f"{manifest.parent}/{json.loads(line)['audio_filepath']}")  # noqa: PTH116  (the least that does)


def seconds(call: object, manifest: Path) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    call(manifest)  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> int:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = corpus(Path(folder), given.rows)
        found = check_manifest(manifest)  # also brings the files into the cache, for both
        assert found.ok, found.errors[:3]
        assert found.rows == given.rows
        times = [(seconds(bare, manifest), seconds(check_manifest, manifest)) for _ in range(given.repeat)]
    bare_s, check_s = (statistics.median(column) for column in zip(*times, strict=True))
    result = {
        "ratio": round(check_s / bare_s, 2),
        "limit": LIMIT,
        "rows": given.rows,
        "rows_per_s": round(given.rows / check_s),
        "check_s": round(check_s, 2),
        "json_and_stat_s": round(bare_s, 2),
        "repeat": given.repeat,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{given.rows:,} rows in {check_s:.1f} s ({result['rows_per_s']:,}/s), "
          f"json + stat {bare_s:.1f} s: {check_s / bare_s:.1f}x, limit {LIMIT:g}x")  # fmt: skip
    return 0 if check_s <= LIMIT * bare_s else 1


if __name__ == "__main__":
    sys.exit(main())
