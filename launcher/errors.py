"""The few errors a person can meet, and the exit code each one ends the command with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line (a contract: CI jobs branch on them)."""

    OK = 0
    BAD_INPUT = 2
    NOT_CONFIRMED = 3
    REFUSED = 4  # by a budget, or nothing fits
    RECIPE_FAILED = 5  # all released
    RELEASE_PENDING = 6  # something may still bill
    GATE_SAID_NO = 7
    STOPPED_AT_LIMIT = 8  # a usable model came home
    INTERRUPTED = 130  # all released


class LauncherError(Exception):
    """An error with one clear message: where (file, key), what (value), and the fix."""

    exit_code: ExitCode = ExitCode.BAD_INPUT

    def __init__(
        self,
        problem: str,
        *,
        fix: str = "",
        file: object = None,
        line: int | None = None,
        key: str = "",
        value: object = None,
    ) -> None:
        self.problem, self.fix, self.key, self.value = problem, fix, key, value
        self.file = None if file is None else str(file)
        self.line = line
        self.facts: dict[str, object] = {}  # what --json tells beside the error
        super().__init__(str(self))

    def __str__(self) -> str:
        where = self.file or ""
        if where and self.line is not None:
            where += f":{self.line}"
        parts = [part for part in (where, self.key) if part]
        head = "  ".join(parts)
        text = f"{head}: {self.problem}" if head else self.problem
        if not self.fix:
            return text
        return f"{text}{'' if text.endswith(('.', '!', '?', ')')) else '.'} {self.fix}"

    def as_json(self) -> dict[str, object]:
        """The error as one JSON-ready object."""
        return {
            "problem": self.problem,
            "fix": self.fix,
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "value": None if self.value is None else repr(self.value)[:200],
            "message": str(self),
        }


class BadInputError(LauncherError):
    """A file, key or argument the user can mend (exit 2); nothing was written."""


class NotConfirmedError(LauncherError):
    """The typed YES was not given (exit 3); nothing was created."""

    exit_code = ExitCode.NOT_CONFIRMED


class RefusedError(LauncherError):
    """A budget said no, or nothing fits (exit 4)."""

    exit_code = ExitCode.REFUSED


class PendingError(RefusedError):
    """A machine at this provider may still bill: nothing new is rented there until it is gone (exit 6)."""

    exit_code = ExitCode.RELEASE_PENDING


class RecipeError(LauncherError):
    """The recipe failed; everything was released (exit 5)."""

    exit_code = ExitCode.RECIPE_FAILED


class GateError(LauncherError):
    """A gate said no (exit 7)."""

    exit_code = ExitCode.GATE_SAID_NO


class StateError(LauncherError):
    """The ledger or a run's folder is damaged, newer than this launcher, or out of disk (exit 2)."""


class LedgerError(StateError):
    """The ledger cannot be read or written now: what was under way can go on when it can (exit 2)."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name a typo most likely meant, or None."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return close[0] if close else None
