"""Runs one recipe detached on whatever machine this is, and says truly whether it still lives. Standard library only.

    python supervise.py STEP_DIR -- COMMAND [ARG ...]

STEP_DIR/lock        held (flock) by the supervisor and its child for as long as either lives
STEP_DIR/alive.json  {"pid": supervisor, "child": pid of the command, "t": started}
STEP_DIR/exit.json   {"code": exit code of the command, "t": ended}, written last and whole
STEP_DIR/log         stdout and stderr of the command

Whether it runs is asked of the lock, never of a process id: ids are used again, locks are not.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

ALREADY_RUNNING = 75  # EX_TEMPFAIL: another supervisor holds this step


def status(step_dir: Path) -> tuple[str, int | None]:
    """`("running", None)`, `("exited", code)`, `("lost", None)` (died without a word) or `("absent", None)`."""
    if not (step_dir / "lock").exists():
        return "absent", None
    with (step_dir / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "running", None
    ended = read_json(step_dir / "exit.json")
    return ("exited", int(ended["code"])) if ended else ("lost", None)


def signal_step(step_dir: Path, signum: int) -> bool:
    """Send a signal to the command, if it runs; returns whether it was sent."""
    if status(step_dir)[0] != "running":
        return False
    alive = read_json(step_dir / "alive.json")
    if not alive:
        return False
    try:
        if signum == signal.SIGKILL:
            os.killpg(int(alive["pid"]), signum)
        os.kill(int(alive["child"]), signum)
    except ProcessLookupError:
        return signum == signal.SIGKILL
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """A whole JSON object, or None."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _write(path: Path, facts: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def main(argv: list[str]) -> int:
    """Run the command under the step's lock; returns its exit code, or 75 when the step is running already."""
    step_dir, command = Path(argv[0]), argv[argv.index("--") + 1 :]
    step_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(step_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ALREADY_RUNNING
    (step_dir / "exit.json").unlink(missing_ok=True)
    with (step_dir / "log").open("ab") as log:
        child = subprocess.Popen(  # the caller's own argv, never a shell
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,)
        )
    _write(step_dir / "alive.json", {"pid": os.getpid(), "child": child.pid, "t": time.time()})

    def forward(signum: int, _frame: FrameType | None) -> None:
        child.send_signal(signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    code = child.wait()
    _write(step_dir / "exit.json", {"code": code if code >= 0 else 128 - code, "t": time.time()})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
