"""`python -m launcher.runner HOME RUN`: what `launcher run` starts, detached."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher import redact
from launcher.clock import SystemClock
from launcher.errors import LauncherError
from launcher.home import Home
from launcher.ledger import Ledger
from launcher.plan import plan_of
from launcher.runner.control import announce, runner_lock, stop_asked
from launcher.runner.interrupts import Interrupts
from launcher.runner.machine import Runner
from launcher.runner.windup import can_read, wind_up


def main(home_root: str, run_id: str) -> int:
    """Take the run's lock and execute it; a second runner for the same run leaves at once."""
    redact.install()  # runner.log, its tracebacks included, and every file that is written from here on
    home, clock = Home(Path(home_root)), SystemClock()
    with runner_lock(home.run_dir(run_id)) as mine:
        if not mine:
            return 0
        announce(home.run_dir(run_id))
        try:
            ledger = Ledger.open(home, clock)
            run = ledger.run(run_id)
            if (run.over or stop_asked(home.run_dir(run_id))) and not can_read(run):
                return int(wind_up(home, ledger, run, clock))
            plan_of(run_id, run.plan)
            interrupts = Interrupts(home.run_dir(run_id))
            interrupts.listen()
            try:
                return int(Runner(home, ledger, run, clock, interrupts).execute())
            finally:
                interrupts.close()
        except LauncherError as error:
            sys.stderr.write(f"{error}\n")  # into runner.log: who watches shows it
            return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
