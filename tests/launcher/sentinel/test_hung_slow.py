"""A runner that is stopped, and a computer that sleeps: for `make test-sentinel`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from attended import Attended
from paid import PaidGround
from test_hung_runner import hang_and_go_on
from test_sentinel import begun, ended


def test_a_runner_that_is_stopped_is_ended_and_another_one_goes_on(
    paid: PaidGround, attended: Attended, tmp_path: Path
) -> None:
    hang_and_go_on(paid, attended, tmp_path, signal.SIGSTOP)


def test_a_computer_that_sleeps_is_not_taken_for_a_runner_that_hangs(paid: PaidGround, attended: Attended) -> None:
    """All is stopped for longer than a runner may be silent, and the sentinel is the first that goes on."""
    process, run = begun(paid, attended, LAUNCHER_HUNG_S="4")
    runner, sentinel = attended.runner(run), attended.sentinel(run)
    for pid in (runner, sentinel):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(sentinel, signal.SIGCONT)
    time.sleep(1)
    os.kill(runner, signal.SIGCONT)
    paid.let_go()
    code, outcome, err = ended(process)
    assert (code, outcome["state"], outcome.get("rescues", [])) == (0, "settled", []), err
    assert attended.runner_noted(run) == runner
    attended.gone()
