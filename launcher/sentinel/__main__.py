"""`python -S -m launcher.sentinel HOME RUN`: watches one run's runner, and goes when nothing of the run is left.

It only waits, with the standard library alone: it asks the runner's lock twice a second, and ends a runner that hangs
(hung.py). When the runner is gone and did not say that all is finished, it starts a rescue (rescue.py), which reads
the journal, starts another runner, or releases. So it stays small for hours, and no fault of ours in a provider or
the ledger can end it.

It is in a session of its own and nobody's child: a closed terminal, a killed process group or an ended login leaves
it. It lets SIGHUP, SIGINT, SIGTERM and SIGQUIT pass: what would end it is what it is there for. (SIGKILL ends it; the
runner then starts another one.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from launcher.failpoints import effect
from launcher.sentinel.hung import Silence, end_hung
from launcher.sentinel.marks import LOCK, NOTE, is_marked_finished
from recipes.supervise import is_held, take

LOOK_S = 0.5
PAUSES = "LAUNCHER_SENTINEL_PAUSES_S"  # seconds before each new runner, such as 1,8,60; their number is the most
PAUSES_S = (1.0, 8.0, 60.0)
AGAIN_S = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # between two tries at what is pending; the last for ever
WELL_S = 600.0  # a runner that lived so long has got over what killed the one before it
LONGEST_S = 3600.0  # one rescue; a provider that never answers must not keep it for ever
DONE, WATCH, AGAIN = 0, 10, 11  # exit codes of a rescue; any other means AGAIN


def main(home: str, run: str) -> int:
    """Take the run's sentinel lock and watch; a second sentinel for the same run leaves at once."""
    run_dir = Path(home) / "runs" / run
    lock = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if not take(lock):
        return 0
    if os.fork():  # whoever started us goes on: from here on the lock is held
        os._exit(0)
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(signum, lambda *_: None)  # a handler, not SIG_IGN: what a rescue starts does not inherit it
    with suppress(OSError):
        (run_dir / NOTE).write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    watch(home, run, run_dir)
    return 0


def watch(home: str, run: str, run_dir: Path) -> None:
    """Until nothing is left of the run: wait for its runner to die, then have it rescued."""
    deaths = tries = 0
    memory = b""  # of a rescue, for the next one: what it could write nowhere
    while True:
        since, silence = time.monotonic(), Silence(run_dir, LOOK_S)
        while is_held(run_dir / "runner.lock"):
            if silence.is_too_long():
                end_hung(home, run, run_dir)
            time.sleep(LOOK_S)
            tries = 0
        if is_marked_finished(run_dir):
            return
        if time.monotonic() - since > WELL_S:
            deaths = 0
        pauses = _pauses()
        pause_s = AGAIN_S[min(tries - 1, len(AGAIN_S) - 1)] if tries else pauses[min(deaths, len(pauses) - 1)]
        if _somebody_came(run_dir, pause_s):
            continue
        code, memory = _rescue(home, run, max(0, len(pauses) - deaths), memory)
        if code == DONE:
            return
        if code == WATCH:
            deaths, tries = deaths + 1, 0
        else:
            tries += 1


def _pauses() -> tuple[float, ...]:
    with suppress(ValueError):
        return tuple(float(part) for part in os.environ.get(PAUSES, "").split(",")) or PAUSES_S
    return PAUSES_S


def _somebody_came(run_dir: Path, seconds: float) -> bool:
    """Whether within so long a runner came (`resume`, a batch), or the run was finished."""
    ends = time.monotonic() + seconds
    while not is_held(run_dir / "runner.lock") and not is_marked_finished(run_dir):
        left = ends - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(LOOK_S, left))
    return True


@effect("sentinel.rescue")
def _rescue(home: str, run: str, most: int, memory: bytes) -> tuple[int, bytes]:
    """A process that knows ledger and providers, and is gone when it is done: (its exit code, what to remember)."""
    command = [sys.executable, "-m", "launcher.sentinel.rescue", home, run, str(most)]
    try:
        done = subprocess.run(command, input=memory, stdout=subprocess.PIPE, check=False, timeout=LONGEST_S)
    except (OSError, subprocess.SubprocessError, MemoryError):  # no process to be had, or one that never ended
        return AGAIN, memory
    return done.returncode, done.stdout or memory


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
