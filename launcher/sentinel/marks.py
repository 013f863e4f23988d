"""What sentinel, runner and viewer know of one another: locks and marks in a run's folder. Standard library only.

sentinel.lock   held by the run's sentinel for as long as it lives; there is never more than one
sentinel.json   {"pid"}, for a person; nothing relies on it
sentinel.log    what it and its rescues said
finished        an empty file: the run is over, told, and nothing of it is rented; the ledger has said so
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from launcher.failpoints import effect
from recipes.supervise import is_held

LOCK, LOG, NOTE, FINISHED = "sentinel.lock", "sentinel.log", "sentinel.json", "finished"


def is_guarded(run_dir: Path) -> bool:
    """Whether a sentinel watches this run (asked of its lock, not of a process id)."""
    return is_held(run_dir / LOCK)


@effect("sentinel.mark")
def mark_finished(run_dir: Path) -> None:
    """Tell the sentinel that it may go. Without the mark it asks the ledger: a full disk costs that, no more."""
    with suppress(OSError):
        (run_dir / FINISHED).touch()


@effect("sentinel.unmark")
def unmark(run_dir: Path) -> None:
    """A runner lives: what an earlier one said is no more true (of a ledger that came back from a copy, say)."""
    with suppress(OSError):
        (run_dir / FINISHED).unlink(missing_ok=True)


def is_marked_finished(run_dir: Path) -> bool:
    """Whether a runner has said that nothing is left to watch, or the run's whole folder is gone."""
    return (run_dir / FINISHED).exists() or not run_dir.is_dir()
