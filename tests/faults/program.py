"""`python -m MODULE …` from a process that has imported what it needs already: a start takes no second of processor.

Python's own fork server: each program is a process of its own, in a session of its own, with its own environment and
arguments, and dies of SIGKILL as any other. What the program itself starts, it starts anew.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = ["tests.faults.preloaded"]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


class Program:
    """A program that has been started."""

    def __init__(self, module: str, words: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        self._out.touch()
        self._err.touch()
        told = (module, list(words), dict(env), str(folder), str(self._out), str(self._err))
        self._process = _context.Process(target=_be, args=told)
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """The exit code, minus a signal's number; None while it lives."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for its end: what it said on stdout and on stderr."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError(f"it did not end within {timeout} s")
        return self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8")


def _be(module: str, words: list[str], env: dict[str, str], folder: str, out: str, err: str) -> None:
    """In the new process: become the program."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, buffering=1)
    sys.argv = [module, *words]
    sys.orig_argv = [sys.executable, "-m", module, *words]
    from launcher import failpoints

    failpoints._ON = bool(env.get(failpoints.VARIABLE) or env.get(failpoints.LOG))  # as a fresh import finds it
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
