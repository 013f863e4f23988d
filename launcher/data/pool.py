"""Convert many recordings in separate processes, so that one that crashes the decoder costs only itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from launcher.data.convert import Converted, DecodeError, convert
from launcher.errors import StateError


@dataclass(frozen=True)
class Task:
    """One recording to convert; `segment` is (start, length) in seconds, or None for all of it."""

    source: Path
    target: Path
    segment: tuple[float, float] | None = None


@dataclass(frozen=True)
class Failed:
    """A recording that cannot be used, and why."""

    why: str


def convert_all(tasks: Sequence[Task], workers: int | None = None) -> Iterator[tuple[Path, Converted | Failed]]:
    """Convert every task; yields (target, outcome) as they finish. Raises StateError when the disk is full."""
    if not tasks:
        return
    count = max(1, min(workers or max(2, os.cpu_count() or 2), len(tasks)))
    left = list(tasks)
    while left:
        in_flight, left = yield from _run(left, count)
        for task in in_flight:
            # The pool died with these at work; alone, each shows whether it was the one.
            crashed, _ = yield from _run([task], 1)
            if crashed:
                yield task.target, Failed("the decoder crashed on it")


def _run(
    tasks: Sequence[Task], count: int
) -> Generator[tuple[Path, Converted | Failed], None, tuple[list[Task], list[Task]]]:
    """One pool over `tasks`; returns (tasks it died with, tasks not begun), both empty when all went well."""
    left = list(reversed(tasks))
    running: dict[Future[Converted | Failed], Task] = {}
    # "spawn": the caller may hold threads (progress bars), which a forked child would inherit half-dead.
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        while left or running:
            while left and len(running) < 2 * count:
                task = left[-1]
                with _ctrl_c_waits():
                    running[pool.submit(_one, task)] = task  # stays in `left` when this raises
                left.pop()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                yield running.pop(future).target, outcome
    except BrokenProcessPool:
        return list(running.values()), left[::-1]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [], []


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back while a worker is started: one that is half begun is never told to end, yet waited for."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C is the main thread's
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def _one(task: Task) -> Converted | Failed:
    try:
        task.target.parent.mkdir(parents=True, exist_ok=True)
        return convert(task.source, task.target, task.segment)
    except DecodeError as error:
        return Failed(str(error))
    except OSError as error:
        raise StateError(f"cannot write: {error.strerror or error}.", file=task.target) from None


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
