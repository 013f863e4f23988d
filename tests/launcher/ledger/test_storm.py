"""Many processes against one cap, killed at random. make test-ledger runs it at its full size: 64 x 50."""

import json
import os
import subprocess
import sys
from pathlib import Path

from launcher.home import Home

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[2]
SIZE = os.environ.get("LAUNCHER_TEST_STORM", "16x8")


def test_no_cap_breaks_and_nothing_is_lost_or_stuck_however_many_reserve_and_die(home: Home, engine: str) -> None:
    processes, _, rounds = SIZE.partition("x")
    path = os.pathsep.join([str(REPO), str(HERE)])
    ran = subprocess.run(
        [sys.executable, HERE / "storm.py", home.root, processes, rounds, "1"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    report = json.loads(ran.stdout)
    print(engine, ran.stdout)  # noqa: T201  the numbers, for who asks (-s)
    assert report["said"]["round"] >= int(processes) * int(rounds)
    assert report["kills"] > 0
    assert report["held by the dead"] > 0 < report["held by the living"]
    assert any(word.startswith("refused:") for word in report["said"])
