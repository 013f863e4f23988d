"""Keeps a sentinel beside a runner: started before anything is rented, and again where it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from launcher.errors import StateError
from launcher.failpoints import effect
from launcher.home import Home
from launcher.layers import is_off
from launcher.sentinel.marks import LOG, is_guarded, unmark

LOOK_S = 2.0  # between two looks at whether it lives
START_S = 60.0  # a twentieth of a second on a quiet machine


class Sentinel:
    """The sentinel of one run, as its runner sees it."""

    def __init__(self, home: Home, run_id: str) -> None:
        self._home, self._run_id, self._dir = home, run_id, home.run_dir(run_id)
        self._over = threading.Event()

    def keep(self) -> None:
        """See to it that one lives, now and for as long as this runner does; raises StateError when none can."""
        if is_off("sentinel"):
            return
        unmark(self._dir)
        self._see_to_it()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Start none any more."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            with suppress(Exception):  # whatever it was: the next look tries again, for as long as the runner lives
                self._see_to_it()

    def _see_to_it(self) -> None:
        if not is_guarded(self._dir):
            with effect("sentinel.start"):
                start(self._home, self._run_id, self._dir)


def start(home: Home, run_id: str, run_dir: Path) -> None:
    """Start a run's sentinel, and return once it watches; raises StateError where it does not."""
    source = str(Path(__file__).resolve().parents[2])
    held = os.environ.get("PYTHONPATH")
    try:
        with (run_dir / LOG).open("ab") as log:
            # -S: nothing but the standard library is looked for, which halves its start and its memory.
            process = subprocess.Popen(
                [sys.executable, "-S", "-m", "launcher.sentinel", str(home.root), run_id],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{held}" if held else source},
            )  # fmt: skip
            code = process.wait(START_S)
    except (OSError, subprocess.SubprocessError, MemoryError) as error:
        raise _not_started(run_dir, str(error)) from error
    if code != 0:
        raise _not_started(run_dir, f"exit code {code}")


def _not_started(run_dir: Path, why: str) -> StateError:
    return StateError(
        f"the sentinel, which releases what this run rents if this launcher dies, could not be started: {why}.",
        file=run_dir / LOG, fix="Nothing is rented without it. Its log may say more.",
    )  # fmt: skip
