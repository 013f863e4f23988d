"""How a run ends other than by finishing, and its words for a person."""

from __future__ import annotations

import re
import signal
import sys
import traceback
from contextlib import suppress

from launcher.errors import ExitCode, LauncherError
from launcher.ledger import RunState
from recipes.manifest import ManifestError

KILLED, TERMINATED = 128 + signal.SIGKILL, 128 + signal.SIGTERM  # a recipe's exit codes when a signal ended it
OUT_OF_MEMORY = "most likely this machine ran out of memory"
OUT_OF_MEMORY_HERE = "this computer ran out of memory"
_ANSI = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")


class Ending(Exception):  # noqa: N818
    """The run is over: its state, exit code and reason."""

    def __init__(self, state: RunState, code: ExitCode, reason: str) -> None:
        self.state, self.code, self.reason = state, code, reason
        super().__init__(reason)


def failed(reason: str) -> Ending:
    """The run failed (exit 5)."""
    return Ending(RunState.FAILED, ExitCode.RECIPE_FAILED, reason)


def plain(words: str) -> str:
    """One line without the colours a recipe's log may have."""
    return "; ".join(line.strip() for line in _ANSI.sub("", words).splitlines() if line.strip())[:500]


def exit_in_words(code: int | None, said: list[str]) -> str:
    """What a step's end means: the signal that killed it, else its last words, else its exit code."""
    last = next((line for line in reversed(said) if plain(line)), "")
    if code is not None and code > 128:
        name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code - 128)
        return f"killed by {name}{f': {OUT_OF_MEMORY}' if code == KILLED else ''}"
    return last or f"exit code {code}"


def say_all() -> None:
    """The whole story of the error at hand, into the log; that it cannot be written is no error of its own."""
    with suppress(OSError, MemoryError):  # a full disk, or no memory, may be the very error
        traceback.print_exc()


def say(words: str) -> None:
    """One line into the log, or none where it cannot be written."""
    with suppress(OSError, MemoryError):
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()


def in_words(error: Exception) -> str:
    """An error for a person: one that we foresaw says what to do; any other where the whole story is."""
    if isinstance(error, LauncherError | ManifestError):
        return str(error)
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY_HERE
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return f"{type(error).__name__}: {error} (a fault of the launcher: runner.log has the whole story)"
