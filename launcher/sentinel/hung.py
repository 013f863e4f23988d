"""Notices a runner that lives and does nothing, and ends it: what follows is what follows any death.

Its silence is counted in our own looks at it, not by a clock: while a laptop sleeps, or everything here is stopped,
nobody looks, and a runner has all its time again when both go on. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from launcher.failpoints import effect
from launcher.pulse import FILE, patience
from recipes.supervise import read_json


class Silence:
    """How long a run's runner has not been heard, in looks that are `look_s` apart."""

    def __init__(self, run_dir: Path, look_s: float) -> None:
        self._file, self._most = run_dir / FILE, patience()[0] / look_s
        self._last, self._looks = 0, 0

    def is_too_long(self) -> bool:
        """Look once. Never too long where no runner could say that it lives: it had no room for its file."""
        try:
            last = self._file.stat().st_mtime_ns
        except OSError:
            last = 0
        self._looks = self._looks + 1 if last and last == self._last else 0
        self._last = last
        if self._looks < self._most:
            return False
        self._looks = 0  # before anything is said or done again, as long again
        return True


@effect("sentinel.end")
def end_hung(home: str, run: str, run_dir: Path) -> bool:
    """SIGKILL to the run's runner, and a word of it in its log; whether there was one.

    The lock may be `launcher reap`'s: nobody is ended but the process that is this run's runner by its own note and
    by its command line.
    """
    pid = int((read_json(run_dir / "runner.json") or {}).get("pid") or 0)
    if pid <= 1 or not _is_runner(pid, home, run):
        return False
    with suppress(OSError), (run_dir / "runner.log").open("a", encoding="utf-8") as log:
        log.write(f"it hung: nothing was heard of it for {patience()[0]:g} s, and its sentinel ended it\n")
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _is_runner(pid: int, home: str, run: str) -> bool:
    """Whether the process is `python -m launcher.runner HOME RUN`: process ids are used again."""
    wanted = ["launcher.runner", home, run]
    try:
        if Path("/proc/self/cmdline").exists():
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
            return [os.fsdecode(word) for word in argv[-3:]] == wanted
        asked = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        said = subprocess.run(asked, capture_output=True, check=False, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return os.fsdecode(said).strip().endswith(" ".join(wanted))
