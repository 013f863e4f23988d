"""Deaths of those who are not at work: a sentinel whose runner lives, and `launcher run` at the terminal."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from launcher.failpoints import LOG, VARIABLE
from launcher.runner.control import is_running
from launcher.sentinel.marks import NOTE, is_guarded
from recipes.supervise import read_json
from tests.faults.field import Copy, until
from tests.faults.program import Program

YES = ("--confirm", "YES", "--max-cost", "3")
MISSED_S = 8.0  # a runner looks every two seconds whether its sentinel lives, and starting one takes a moment


def passings(log: Path, who: str, name: str) -> int:
    """How often that process has passed a failpoint, by the log."""
    if not log.exists():
        return 0
    rows = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return sum(len(row) == 4 and row[0] == who and row[3] == name for row in rows)


def wait_for(point: str, log: Path, program: Program) -> None:
    """Until the runner has passed that failpoint, or the program has ended."""
    name, _, number = point.partition(":")
    until(lambda: passings(log, "runner", name) >= int(number) or program.poll() is not None, 600, pause_s=0.01)


def without_sentinel(copy: Copy, point: str, env: dict[str, str]) -> tuple[Program, int | None, list[str]]:
    """A whole runner, ended or killed, whose sentinel is killed when it passes the (first) point.

    The runner; how many machines it had when its sentinel was killed, None where there was none to kill; and what was
    wrong: a runner that goes on has another sentinel before long.
    """
    first, _, then = point.partition(", ")
    log, folder = copy.root.parent / "passings", copy.home.run_dir(copy.run)
    held = {**env, LOG: str(log), VARIABLE: f"runner@{then}" if then else ""}
    runner = copy.program("launcher.runner", str(copy.root), copy.run, **held)
    wait_for(first, log, runner)
    alive: int | None = None
    if is_guarded(folder) and (pid := (read_json(folder / NOTE) or {}).get("pid")):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
            alive = len(copy.alive())
    died_at = time.monotonic()
    runner.communicate()
    started, lived_s = passings(log, "runner", "sentinel.start.after"), time.monotonic() - died_at
    wrong = (
        [f"no other sentinel within {lived_s:.0f} s"]
        if alive is not None and lived_s > MISSED_S and started < 2
        else []
    )
    return runner, alive, wrong


def launch(copy: Copy, job: Path, **env: str) -> Program:
    """`launcher run` of a job, with the YES given."""
    return copy.program("launcher", "--home", str(copy.root), "run", str(job), *YES, "--json", **env)


def launch_and_die(copy: Copy, job: Path, point: str, env: dict[str, str]) -> Program:
    """`launcher run`, dead by its own failpoint, or (`runner@POINT`) by its runner's."""
    if not point.startswith("runner@"):
        return launch(copy, job, **env)
    log = copy.root.parent / "passings"
    program = launch(copy, job, **{**env, LOG: str(log), VARIABLE: ""})
    wait_for(point.removeprefix("runner@"), log, program)
    with suppress(ProcessLookupError):
        os.kill(program.pid, signal.SIGKILL)
    return program


def launched_again(copy: Copy, job: Path, env: dict[str, str]) -> list[str]:
    """The user types the same again, whatever became of the first: what was wrong with the answer."""
    known = {run.run for run in copy.ledger.runs()}
    again = launch(copy, job, **env)
    out, said = again.communicate()
    wrong = [f"launcher run, again: {said[-300:]}"] if again.returncode != 0 or "Traceback" in said else []
    runs = copy.ledger.runs()
    until(lambda: not any(is_running(copy.home.run_dir(run.run)) for run in runs), 600)
    for second in (run for run in runs if run.run not in known):
        beside = [run for run in known if _ended_at(copy, run) > second.created_at]  # by then it must have been found
        wrong += [f"a second run beside {', '.join(beside)}, which was not over: {out[-200:]}"] if beside else []
    if unsettled := [f"{run.run} {run.state}" for run in copy.ledger.runs() if str(run.state) != "settled"]:
        wrong.append(f"not settled: {', '.join(unsettled)}")
    return wrong


def _ended_at(copy: Copy, run: str) -> str:
    """When a run was settled; the end of time, while it is not."""
    ends = [str(event["at"]) for event in copy.ledger.events(run) if event["kind"] == "run.settled"]
    return ends[0] if ends else "9999"
