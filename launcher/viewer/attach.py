"""Follows a run to its end: reads its event file and its runner's lock; Ctrl-C asks before it does anything."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.cli.output import Output
from launcher.clock import Clock
from launcher.errors import ExitCode, LedgerError
from launcher.home import Home
from launcher.ledger import LeaseState, Ledger
from launcher.runner.control import answer, answer_to, ask_to_stop, is_running, last_words, watching
from launcher.sentinel.marks import is_guarded
from launcher.viewer.state import STEP_WORDS, Progress, sparkline
from recipes.contract import EVENTS, read_events

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

POLL_S = 0.2
NO_ROOM = 1 << 16  # bytes left on a disk on which nothing can be written down


def attach(home: Home, ledger: Ledger, run_id: str, out: Output, clock: Clock) -> int | None:
    """Show a run until its runner ends. Returns its exit code, or None when the viewer was told to detach."""
    run_dir = home.run_dir(run_id)
    view = _Live(out, run_id) if out.interactive else _Plain(out)
    watched = watching(run_dir) if out.interactive else nullcontext()
    with watched, _signals(run_dir, out) as ctrl_c, view.shown() as show:
        warned = False
        for event in _events(run_dir, clock, lambda: _is_told(ledger, run_id)):
            show(event)
            if not warned and event is None and not is_running(run_dir) and _is_full(home.root):
                out.warn(f"the disk of {home.root} is full, and the runner of {run_id} died of it: what it rents is "
                         "released all the same. Free some room, so that it can be written down.")  # fmt: skip
                warned = True
            if out.interactive and event and event.get("kind") == "question" and answer_to(run_dir) is None:
                view.ask(lambda event=event: _decide(run_dir, event, out))  # type: ignore[misc]
            if ctrl_c.pending and view.ask(lambda: _choose(run_dir, out, ctrl_c)) == "detach":
                out.say(f"left running; watch it again with: launcher attach {run_id}")
                return None
    run = ledger.run(run_id)
    if not run.over or run.outcome is None:
        words = last_words(run_dir)
        said = f" ({words})" if words else ""
        out.warn(f"the runner of {run_id} died in state {run.state}{said}; go on with: launcher resume {run_id}")
        held = any(lease.state is not LeaseState.RELEASED for lease in ledger.leases(run_id))
        return int(ExitCode.RELEASE_PENDING if held else ExitCode.RECIPE_FAILED)
    return int(run.outcome.get("exit", run.exit_code or 0))


def _is_told(ledger: Ledger, run_id: str) -> bool:
    """Whether what came of a run is known. A ledger that cannot be read just now tells nothing."""
    with suppress(LedgerError):
        run = ledger.run(run_id)
        return run.over and run.outcome is not None
    return False


def _is_full(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < NO_ROOM
    return False


def _events(run_dir: Path, clock: Clock, is_told: Callable[[], bool]) -> Iterator[dict[str, Any] | None]:
    """New events as they come, None between; ends when all was read and nobody takes the run further.

    A runner that died is no end while its sentinel lives: that starts another one, or releases.
    """
    offset = 0
    while True:
        # Asked before reading: what was written last is still read.
        alive = is_running(run_dir) or (is_guarded(run_dir) and not is_told())
        for after, event in read_events(run_dir / EVENTS, offset):
            offset = after
            yield event
        if not alive:
            return
        yield None
        clock.sleep(POLL_S)


@dataclass
class _CtrlC:
    """A Ctrl-C that waits to be answered between two events."""

    pending: bool = False


@contextmanager
def _signals(run_dir: Path, out: Output) -> Iterator[_CtrlC]:
    """With a terminal Ctrl-C offers a choice; without one SIGINT and SIGTERM mean: release now."""
    ctrl_c = _CtrlC()

    def release_now(*_: object) -> None:
        ask_to_stop(run_dir, "now")
        out.warn("stopping: releasing at once")

    def offer(*_: object) -> None:
        if ctrl_c.pending:
            release_now()
        ctrl_c.pending = True

    before = signal.signal(signal.SIGINT, offer if out.interactive else release_now)
    before_term = signal.signal(signal.SIGTERM, release_now)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, before_term)


def _choose(run_dir: Path, out: Output, ctrl_c: _CtrlC) -> str:
    """Ask what Ctrl-C meant. A second Ctrl-C releases now."""

    def second(*_: object) -> None:
        raise KeyboardInterrupt

    held = signal.signal(signal.SIGINT, second)
    try:
        out.say("d: leave it running    c: fetch what there is, then release")
        out.say("Enter: go on watching  Ctrl-C again: release now")
        answer = input("> ").strip().lower()
    except EOFError:
        answer = "d"
    except KeyboardInterrupt:
        answer = "now"
    finally:
        signal.signal(signal.SIGINT, held)
        ctrl_c.pending = False
    if answer == "now":
        ask_to_stop(run_dir, "now")
        out.warn("stopping: releasing at once")
    elif answer.startswith("c"):
        ask_to_stop(run_dir, "collect")
    return "detach" if answer.startswith("d") else "stay"


def _decide(run_dir: Path, event: dict[str, Any], out: Output) -> str:
    """Put the runner's question; what is not one of its choices is asked again, and no answer means stop."""
    choices = [str(choice) for choice in event.get("choices") or ()]
    out.say(f"{event.get('message', '')}", style="yellow")
    out.say("stop: fetch what there is, then release    trim: shorten it to what the amount buys")
    out.say("go on: as it is, until the amount or the deadline ends it    (stop, if you say nothing for 2 minutes)")
    try:
        said = ""
        while said not in choices:
            said = input(f"{' / '.join(choices)} > ").strip().lower()
    except (EOFError, KeyboardInterrupt):
        said = choices[0]
    answer(run_dir, said)
    return said


class _Plain:
    """One line for each thing worth a line."""

    def __init__(self, out: Output) -> None:
        self._out, self._progress = out, Progress()

    @contextmanager
    def shown(self) -> Iterator[Any]:
        yield self._show

    def ask(self, question: Callable[[], str]) -> str:
        """Ask; there is nothing to put aside."""
        return question()

    def _show(self, event: dict[str, Any] | None) -> None:
        line = self._progress.fold(event) if event else None
        if line:
            self._out.say(line)


class _Live:
    """A bar and figures that stay in place; notes and warnings scroll above."""

    def __init__(self, out: Output, run_id: str) -> None:
        self._out, self._run_id, self._progress = out, run_id, Progress()
        self._live: Live

    @contextmanager
    def shown(self) -> Iterator[Any]:
        from rich.live import Live

        self._live = Live(self._render(), console=self._out.console, refresh_per_second=5, transient=True)
        with self._live:
            yield self._show

    def _show(self, event: dict[str, Any] | None) -> None:
        if event is not None:
            line = self._progress.fold(event)
            if line and event.get("kind") not in ("progress", "phase"):
                self._out.say(line)
        self._live.update(self._render())

    def ask(self, question: Callable[[], str]) -> str:
        """Ask with the live lines put aside, so that they do not draw over the answer."""
        self._live.stop()
        try:
            return question()
        finally:
            self._live.start(refresh=True)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        seen = self._progress
        head = Text(f"run {self._run_id}  ", style="bold")
        head.append(STEP_WORDS.get(seen.step, seen.step), style="cyan")
        if seen.phase:
            head.append(f" · {seen.phase}")
        rows: list[RenderableType] = [head]
        if seen.total:
            grid = Table.grid(padding=(0, 1), expand=True)
            grid.add_column(ratio=1)
            grid.add_column(justify="right", no_wrap=True)
            grid.add_row(ProgressBar(total=seen.total, completed=seen.at_step), f"{seen.at_step:,}/{seen.total:,}")
            rows.append(grid)
            figures = Text(" " + seen.line().partition(" · ")[2])
            if seen.losses:
                figures.append(f"   {sparkline(seen.losses)}", style="dim")
            rows.append(figures)
        rows.append(Text(" Ctrl-C: leave it running, or fetch what there is and release", style="dim"))
        return Group(*rows)
