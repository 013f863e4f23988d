"""How the rest of the program speaks to a runner: its lock says whether it lives, a file says when to stop."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from launcher.clock import Clock
from launcher.errors import StateError
from launcher.failpoints import effect
from launcher.home import Home
from recipes.contract import write_json
from recipes.supervise import is_held, read_json, take

StopHow = Literal["collect", "now"]


@contextmanager
def runner_lock(run_dir: Path) -> Iterator[bool]:
    """Hold the run's lock; yields False when another runner holds it."""
    with effect("runner.lock"):
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / "runner.lock").open("ab")
        mine = take(lock.fileno())
    with lock:
        yield mine


def is_running(run_dir: Path) -> bool:
    """Whether a runner lives for this run (asked of its lock, not of a process id)."""
    return is_held(run_dir / "runner.lock")


@effect("runner.spawn")
def spawn(home: Home, run_id: str, clock: Clock) -> None:
    """Start the runner in its own session: a closed terminal or a dropped connection changes nothing."""
    run_dir = home.run_dir(run_id)
    run_dir.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).resolve().parents[2]
    with (run_dir / "runner.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher.runner", str(home.root), run_id],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": _with(str(source)), "LAUNCHER_HOME": str(home.root)},
        )  # fmt: skip
    started = run_dir / "runner.json"
    while process.poll() is None:
        held = read_json(started)
        if held and held.get("pid") == process.pid:
            return
        clock.sleep(0.02)
    if process.returncode not in (0, None) and (read_json(started) or {}).get("pid") != process.pid:
        raise StateError(
            f"the runner could not start: {last_words(run_dir)}", file=run_dir / "runner.log", fix="Its log says why."
        )


def last_words(run_dir: Path) -> str:
    """The last line that runners of this run left in their log."""
    try:
        lines = (run_dir / "runner.log").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")


@effect("runner.announce")
def announce(run_dir: Path) -> None:
    """The runner's first act: say that it holds the lock."""
    write_json(run_dir / "runner.json", {"pid": os.getpid()})


@effect("control.stop")
def ask_to_stop(run_dir: Path, how: StopHow) -> None:
    """Ask the runner to collect and release, or to release now. `now` is never weakened to `collect`."""
    if stop_asked(run_dir) != "now":
        write_json(run_dir / "control.json", {"stop": how})


def stop_asked(run_dir: Path) -> StopHow | None:
    """What was asked, if anything."""
    held = read_json(run_dir / "control.json")
    asked = held.get("stop") if held else None
    return "now" if asked == "now" else "collect" if asked == "collect" else None


@contextmanager
def watching(run_dir: Path) -> Iterator[None]:
    """Be somebody who can be asked: a person at a terminal who watches this run. Several may."""
    with effect("control.watch"):
        lock = (run_dir / "watched.lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_SH)
    with lock:
        yield


def is_watched(run_dir: Path) -> bool:
    """Whether somebody at a terminal watches this run now."""
    try:
        with (run_dir / "watched.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@effect("control.question")
def put_question(run_dir: Path, text: str, choices: Sequence[str], until: str) -> None:
    """Ask whoever watches; an answer to an earlier question is none to this one."""
    (run_dir / "answer.json").unlink(missing_ok=True)
    write_json(run_dir / "question.json", {"text": text, "choices": list(choices), "until": until})


def answer_to(run_dir: Path) -> str | None:
    """What was answered to the question, if anything yet."""
    held = read_json(run_dir / "answer.json")
    return str(held.get("answer")) if held else None


@effect("control.answer")
def answer(run_dir: Path, said: str) -> None:
    """Answer the question that is open."""
    write_json(run_dir / "answer.json", {"answer": said})


def _with(source: str) -> str:
    held = os.environ.get("PYTHONPATH")
    return f"{source}{os.pathsep}{held}" if held else source
