"""What the runner asks of a machine, wherever it stands. Paths on it are relative to the lease's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from launcher.errors import ExitCode, LauncherError


class HostError(LauncherError):
    """The machine answers but cannot do what is asked: no Python, no rsync, a full disk (exit 5)."""

    exit_code = ExitCode.RECIPE_FAILED


class HostUnreachableError(LauncherError):
    """The machine did not answer for as long as we wait. What runs there may run on: no step has failed (exit 5)."""

    exit_code = ExitCode.RECIPE_FAILED


class HostKeyChangedError(HostUnreachableError):
    """Another host key than the one pinned for this lease: never spoken to again, never retried (exit 5)."""


@dataclass(frozen=True)
class StepStatus:
    """How a started step does: running; exited with a code; lost (died without a word); absent (never started)."""

    state: Literal["running", "exited", "lost", "absent"]
    code: int | None = None


class Host(Protocol):
    """One machine of one lease."""

    @property
    def python(self) -> str:
        """The recipe environment's Python on that machine."""
        ...

    def path(self, remote: str) -> str:
        """The absolute path there of a path relative to the lease's folder."""
        ...

    def put(self, local: Path, remote: str) -> None:
        """Send a file or a folder; whole or not at all, and a repeat sends only what is missing."""
        ...

    def get(self, remote: str, local: Path) -> None:
        """Fetch a file to exactly `local`, atomically; raises FileNotFoundError when it is not there."""
        ...

    def read(self, remote: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """Bytes of a file from an offset; empty when there are none (yet)."""
        ...

    def start(self, step: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a command detached, once: a step that already runs there is left to run."""
        ...

    def status(self, step: str) -> StepStatus:
        """How a step does."""
        ...

    def signal(self, step: str, signum: int) -> None:
        """Send a signal to a step's command, if it runs."""
        ...

    def running_steps(self) -> list[str]:
        """The steps that still run there, by name."""
        ...

    def clear(self, steps: Sequence[str]) -> None:
        """Remove these steps, what they made (`out`) and their `specs`: another run begins. What was sent stays.

        Raises HostError where one of them still runs.
        """
        ...

    def wipe(self) -> None:
        """Remove all that was sent and made there; steps are ended before, not by this."""
        ...
