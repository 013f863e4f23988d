"""Failpoints kill the very process at the very passing that they name, and do nothing where nobody asks for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
WORK = """
from launcher.failpoints import effect

@effect("outer")
def work(n):
    with effect("inner"):
        print(n, flush=True)

for n in range(3):
    work(n)
"""


def run(folder: Path, env: dict[str, str], module: str = "") -> tuple[int, list[str]]:
    """Exit code and what was printed before the end."""
    (folder / "launcher_work").mkdir(exist_ok=True)
    (folder / "launcher_work" / "runner.py").write_text(WORK)
    command = ["-m", module] if module else [str(folder / "launcher_work" / "runner.py")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAUNCHER_")}
    done = subprocess.run(
        [sys.executable, *command], env={**clean, "PYTHONPATH": f"{REPO}:{folder}", **env}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.split()


def test_without_a_request_nothing_happens(tmp_path: Path) -> None:
    assert run(tmp_path, {}) == (0, ["0", "1", "2"])


def test_it_dies_before_and_after_and_at_the_nth_passing(tmp_path: Path) -> None:
    killed = -signal.SIGKILL
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": "inner.before"}) == (killed, [])
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": "inner.after"}) == (killed, ["0"])
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": "outer.before:3"}) == (killed, ["0", "1"])
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": "*:7"}) == (killed, ["0", "1"])  # before inner is the 6th
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": "inner.after:4"}) == (0, ["0", "1", "2"])


def test_only_the_process_that_was_named_dies(tmp_path: Path) -> None:
    named = "sentinel@inner.before,runner@inner.before:2"
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": named}, "launcher_work.runner") == (-signal.SIGKILL, ["0"])
    assert run(tmp_path, {"LAUNCHER_FAILPOINT": "sentinel@*"}, "launcher_work.runner") == (0, ["0", "1", "2"])


def test_with_a_memory_it_dies_once(tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    fired.mkdir()
    env = {"LAUNCHER_FAILPOINT": "inner.before", "LAUNCHER_FAILPOINT_FIRED": str(fired)}
    assert run(tmp_path, env) == (-signal.SIGKILL, [])
    assert run(tmp_path, env) == (0, ["0", "1", "2"])


def test_the_log_names_each_passing_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(tmp_path, {"LAUNCHER_FAILPOINT_LOG": str(log)}, "launcher_work.runner")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [name for *_, name in lines[:4]] == ["outer.before", "inner.before", "inner.after", "outer.after"]
    assert len(lines) == 12
    assert {who for who, *_ in lines} == {"runner"}
