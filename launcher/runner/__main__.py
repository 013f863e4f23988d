"""`python -m launcher.runner HOME RUN`: what `launcher run` starts, detached."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher import redact
from launcher.clock import SystemClock
from launcher.errors import ExitCode, LauncherError
from launcher.failpoints import effect
from launcher.home import Home
from launcher.ledger import Ledger
from launcher.plan import plan_of
from launcher.pulse import Pulse
from launcher.runner.control import announce, runner_lock, stop_asked
from launcher.runner.ending import in_words, say, say_all
from launcher.runner.interrupts import Interrupts
from launcher.runner.machine import Runner
from launcher.runner.windup import can_read, wind_up
from launcher.sentinel.keeping import Sentinel
from launcher.sentinel.marks import mark_finished


def main(home_root: str, run_id: str) -> int:
    """Take the run's lock and execute it; a second runner for the same run leaves at once."""
    redact.install()  # runner.log, its tracebacks included, and every file that is written from here on
    home = Home(Path(home_root))
    run_dir = home.run_dir(run_id)
    with runner_lock(run_dir) as mine:
        if not mine:
            return 0
        with effect("runner.beat"):
            pulse = Pulse(run_dir)
        interrupts, sentinel = Interrupts(run_dir), Sentinel(home, run_id)
        interrupts.listen()  # first: a signal before the first machine is one that ends the run in order, too
        try:
            announce(run_dir)
            return int(_execute(home, run_id, interrupts, sentinel))
        except LauncherError as error:
            say(str(error))  # into runner.log: who watches shows it
            return int(error.exit_code)
        except Exception as error:  # noqa: BLE001  what is left to be released is its sentinel's
            say_all()
            say(in_words(error))
            return int(ExitCode.RECIPE_FAILED)
        finally:
            sentinel.close()
            interrupts.close()
            pulse.close()


def _execute(home: Home, run_id: str, interrupts: Interrupts, sentinel: Sentinel) -> ExitCode:
    clock, run_dir = SystemClock(), home.run_dir(run_id)
    ledger = Ledger.open(home, clock)
    run = ledger.run(run_id)
    if (run.over or stop_asked(run_dir)) and not can_read(run):
        code = wind_up(home, ledger, run, clock)
    else:
        if not plan_of(run_id, run.plan).is_free:
            sentinel.keep()
        code = Runner(home, ledger, run, clock, interrupts).execute()
    outcome = ledger.run(run_id).outcome
    if outcome is not None and outcome.get("released") and not ledger.owes(run_id):
        mark_finished(run_dir)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
