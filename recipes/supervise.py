"""Runs one recipe detached on whatever machine this is, and says truly whether it still lives. Standard library only.

    python supervise.py STEP_DIR -- COMMAND [ARG ...]

STEP_DIR/lock        held (flock) by the supervisor and its child for as long as either lives
STEP_DIR/alive.json  {"pid": supervisor, "child": pid of the command, "t": started}
STEP_DIR/exit.json   {"code": exit code of the command, "t": ended}, written last and whole
STEP_DIR/log         stdout and stderr of the command

Who starts it makes STEP_DIR. Where that has gone, or is put aside meanwhile, nothing is started or left running: a
lease that is released while a step starts stays released.

Whether it runs is asked of the lock, never of a process id: ids are used again, locks are not. Who only asks takes
a shared lock for a moment, so two who ask do not mislead each other; who means to hold it tries for a while.
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
CANNOT_START = 127  # as a shell says it
LOCK_PATIENCE_S = 2.0  # longer than anybody's question about the lock takes


def status(step_dir: Path) -> tuple[str, int | None]:
    """`("running", None)`, `("exited", code)`, `("lost", None)` (died without a word) or `("absent", None)`."""
    if not (step_dir / "lock").exists():
        return "absent", None
    # First: a worker that the command left behind may hold the lock although the command has ended.
    ended = read_json(step_dir / "exit.json")
    if ended is None:
        if is_held(step_dir / "lock"):
            return "running", None
        ended = read_json(step_dir / "exit.json")  # it may have ended between the two questions
    return ("exited", int(ended["code"])) if ended else ("lost", None)


def is_held(lock: Path) -> bool:
    """Whether somebody holds a lock file; false when there is none."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def take(lock: int) -> bool:
    """Take an open lock file for good; False when another holder keeps it, not just asks about it."""
    ends = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                return False
            time.sleep(0.02)
        else:
            return True


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
    """Run the command under the step's lock; returns its exit code.

    75 when the step is running already, 127 when the command cannot be started or the step's folder has gone.
    """
    step_dir, command = Path(argv[0]), argv[argv.index("--") + 1 :]
    try:
        lock = os.open(step_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return CANNOT_START
    if not take(lock):
        return ALREADY_RUNNING
    if not _is_at(lock, step_dir / "lock"):
        return CANNOT_START
    for stale in ("exit.json", "alive.json"):  # of an earlier attempt: its process ids may be another's by now
        (step_dir / stale).unlink(missing_ok=True)
    child: subprocess.Popen[bytes] | None = None

    def forward(signum: int, _frame: FrameType | None) -> None:
        if child is not None:
            child.send_signal(signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    with (step_dir / "log").open("ab") as log:
        try:
            child = subprocess.Popen(  # the caller's own argv, never a shell
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,)
            )
        except OSError as error:
            log.write(f"{command[0]} cannot be started: {error.strerror}\n".encode())
    if child is None:
        _write(step_dir / "exit.json", {"code": CANNOT_START, "t": time.time()})
        return CANNOT_START
    try:
        _write(step_dir / "alive.json", {"pid": os.getpid(), "child": child.pid, "t": time.time()})
        code = child.wait()
        _write(step_dir / "exit.json", {"code": code if code >= 0 else 128 - code, "t": time.time()})
    finally:
        child.kill()  # where nobody can be told of it; one that has ended is sent nothing
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)  # workers it left behind hold memory and the lock; we are done too
    return code


def _is_at(opened: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
