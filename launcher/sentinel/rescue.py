"""`python -m launcher.sentinel.rescue HOME RUN MOST`: what a sentinel has done when its runner is gone.

Reads the journal and starts another runner, which goes on from there; where that was tried often enough (MOST more
may be), or somebody asked for release now, it releases with proof and settles. It holds the runner's lock while it
releases, as a runner and `launcher reap` do: of the three only one is ever at work. The exit code tells the sentinel
what to do next. While the ledger cannot be written (a full disk), machines are ended all the same, and when they were
is said on stdout, with what was wrong: the sentinel keeps it, and gives it to the next rescue on stdin.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher import redact
from launcher.clock import Clock, SystemClock, iso
from launcher.errors import BadInputError, ExitCode, LauncherError, LedgerError
from launcher.failpoints import effect
from launcher.home import Home
from launcher.layers import note_rescue
from launcher.ledger import LeaseState, Ledger, Run, RunState
from launcher.reaper import reap
from launcher.runner.control import is_running, last_words, runner_lock, spawn, stop_asked
from launcher.runner.ending import Ending, in_words, say, say_all
from launcher.runner.mirror import Mirror
from launcher.runner.steps import TUNED
from launcher.runner.windup import OTHER_VERSION, can_read, end_unrecorded, wind_up
from launcher.sentinel.__main__ import AGAIN, DONE, WATCH


def main(home_root: str, run_id: str, most: str) -> int:
    """One look, and what it calls for; DONE, WATCH or AGAIN."""
    redact.install()
    home, clock = Home(Path(home_root)), SystemClock()
    try:
        return _Rescue(home, run_id, clock, _remembered(sys.stdin.read())).go(int(most))
    except LauncherError as error:
        _say(clock, str(error))
    except Exception as error:  # noqa: BLE001  it is tried again, for as long as something may be left
        _say(clock, in_words(error))
        say_all()
    return AGAIN


class _Rescue:
    def __init__(self, home: Home, run_id: str, clock: Clock, memory: dict[str, Any]) -> None:
        self._home, self._run_id, self._clock, self._dir = home, run_id, clock, home.run_dir(run_id)
        #: lease -> its machine as it was when it was gone, not in the ledger yet; and what the ledger said of that.
        self._ended: dict[str, Any] = dict(memory.get("ended") or {})
        self._refused = str(memory.get("refused") or "")
        self._ledger = Ledger.open(home, clock)

    def go(self, most: int) -> int:
        try:
            run = self._ledger.run(self._run_id)
        except BadInputError:
            return self._by_label()
        if self._is_finished(run) or not self._ledger.is_ours(run):
            return DONE
        if is_running(self._dir):
            return WATCH
        told = run.over and run.outcome is not None
        if most > 0 and not told and stop_asked(self._dir) != "now" and can_read(run):
            return self._go_on(run)
        with runner_lock(self._dir) as mine:
            return self._release(self._ledger.run(self._run_id)) if mine else WATCH

    def _by_label(self) -> int:
        """The ledger was lost, or is an older copy: what reap can tell by labels, until nothing of the run is left.

        Nothing is written into the run's folder: reap waits for some time after a run's last word.
        """
        if is_running(self._dir):
            return WATCH
        told = reap(self._home, self._ledger, self._clock)
        if any(fact.get("run") == self._run_id for fact in told.released):
            _say(self._clock, "the ledger knows nothing of this run; its machine was released by its label")
        left = any(fact.get("run") == self._run_id for fact in (*told.seen, *told.pending))
        return AGAIN if left or told.unknown else DONE

    def _is_finished(self, run: Run) -> bool:
        told = run.over and run.outcome is not None and bool(run.outcome.get("released"))
        return told and not self._ledger.owes(run.run)

    def _go_on(self, run: Run) -> int:
        died = last_words(self._dir)
        words = f"the runner died{f' ({died})' if died else ''}; another one goes on from the journal"
        _say(self._clock, words)
        Mirror(self._dir).say("warning", message=words)
        try:
            note_rescue(self._ledger, run.run, "sentinel", "went on", state=str(run.state), said=died)
        except LedgerError as error:  # another runner may find the disk free again
            _say(self._clock, str(error))
        try:
            spawn(self._home, run.run, self._clock)
        except (LauncherError, OSError) as error:  # a runner that dies at once has been tried, as any other
            _say(self._clock, str(error))
        return WATCH

    def _release(self, run: Run) -> int:
        """Release, settle and tell. Where the ledger cannot be written the machines are ended all the same."""
        if self._is_finished(run):
            return DONE
        why = self._why(run)
        _say(self._clock, f"releasing: {why.reason}")
        try:
            code = wind_up(self._home, self._ledger, run, self._clock, why, by="sentinel", ended=self._ended)
        except LedgerError as error:
            _say(self._clock, str(error))
            self._refused = error.problem.rstrip(".")
            self._end_unrecorded(run)
            return AGAIN
        _say(self._clock, "release pending" if code is ExitCode.RELEASE_PENDING else "released")
        return DONE if self._is_finished(self._ledger.run(run.run)) else AGAIN

    @effect("sentinel.blind")
    def _end_unrecorded(self, run: Run) -> None:
        for lease in self._ledger.leases(run.run):
            if lease.state is not LeaseState.RELEASED and lease.lease not in self._ended:
                words, machine = end_unrecorded(self._home, run, lease, self._clock)
                _say(self._clock, f"not in the ledger yet: {words}")
                if machine is not None:
                    self._ended[lease.lease] = machine
        sys.stdout.write(json.dumps({"ended": self._ended, "refused": self._refused}))
        sys.stdout.flush()

    def _why(self, run: Run) -> Ending:
        """How a run ends whose runner does not come back."""
        if not can_read(run):
            return OTHER_VERSION
        if stop_asked(self._dir) == "now":
            words = "stopped; its runner died, and its sentinel released at once"
            return Ending(RunState.CANCELLED, ExitCode.INTERRUPTED, words)
        if run.state is RunState.COLLECTED and (self._dir / TUNED).is_file():
            words = "its runner died while releasing; its sentinel released"
            return Ending(RunState.STOPPED, ExitCode.STOPPED_AT_LIMIT, words)
        died = self._refused or last_words(self._dir)
        words = f"its runner died again and again{f' ({died})' if died else ''}; its sentinel released"
        return Ending(RunState.FAILED, ExitCode.RECIPE_FAILED, words)


def _remembered(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        held = json.loads(text)
        return held if isinstance(held, dict) else {}
    return {}


def _say(clock: Clock, words: str) -> None:
    say(f"{iso(clock.now())} {words}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
