"""Stopping at once: what waits for a machine or a provider is cut short by a signal, or by `stop` from elsewhere."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from launcher.errors import ExitCode
from launcher.failpoints import effect
from launcher.ledger import RunState
from launcher.runner.control import StopHow, ask_to_stop, stop_asked
from launcher.runner.ending import Ending

_LOOK_S = 0.5  # between two looks at the control file


class Interrupts:
    """What was asked of this runner, by signal or by file. One per process: it owns the signal handlers.

    Inside `cutting_short` the request is raised as an Ending wherever the work is, a transfer of hours included:
    never inside a ledger write or a create call, which are not put there.
    """

    def __init__(self, run_dir: Path) -> None:
        self._dir = run_dir
        self._signalled = False
        self._cut: tuple[StopHow, ...] = ()
        self._over = threading.Event()

    @property
    def asked(self) -> StopHow | None:
        """Release now, collect what there is, or nothing."""
        return "now" if self._signalled else stop_asked(self._dir)

    def listen(self) -> None:
        """Take SIGTERM, SIGINT and SIGQUIT as `now`; look at the control file beside the work. In the main thread.

        SIGHUP changes nothing: a runner has no terminal that could be closed.
        """
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(signum, self._signal)
        signal.signal(signal.SIGHUP, lambda *_: None)  # a handler, not SIG_IGN: what we start does not inherit it
        signal.signal(signal.SIGUSR1, self._look)
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Look no longer; a signal that was on its way is not one to die of."""
        self._over.set()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def refuse_now(self) -> None:
        """Raise the Ending where somebody asked for release now."""
        if self._signalled:
            raise Ending(RunState.CANCELLED, ExitCode.INTERRUPTED, "interrupted; released at once")
        if self.asked == "now":
            raise Ending(RunState.CANCELLED, ExitCode.INTERRUPTED, "stopped; released at once")

    @contextmanager
    def cutting_short(self, *, collecting_too: bool = False) -> Iterator[None]:
        """Inside, release-now is raised at once; `collecting_too`, where there is nothing to collect yet."""
        outer, self._cut = self._cut, ("now", "collect") if collecting_too else ("now",)
        try:
            self._raise()
            yield
        finally:
            self._cut = outer

    def _raise(self) -> None:
        asked = self.asked
        if asked is None or asked not in self._cut:
            return
        self._cut = ()  # once: what cleans up is not cut again
        self.refuse_now()
        words = "asked to stop before it began; there was nothing to keep yet"
        raise Ending(RunState.STOPPED, ExitCode.INTERRUPTED, words)

    def _signal(self, *_: object) -> None:
        self._signalled = True
        with suppress(OSError):  # whoever goes on after us, should we be killed now, must not take the work up again
            ask_to_stop(self._dir, "now")
        self._raise()

    def _look(self, _signum: int, _frame: FrameType | None) -> None:
        self._raise()

    def _watch(self) -> None:
        told = None
        while not self._over.wait(_LOOK_S):
            asked = stop_asked(self._dir)
            if asked is not None and (asked != told or self._cut):
                told = asked
                with effect("run.cut"):
                    os.kill(os.getpid(), signal.SIGUSR1)  # only the main thread can be interrupted
