"""A runner that lives and does nothing: stopped, or stuck. Its sentinel ends it, and another one goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from attended import Attended
from paid import PaidGround
from test_sentinel import STEPS, assert_released, begun, ended

from launcher.home import Home
from launcher.pulse import FILE
from launcher.runner.control import announce, runner_lock
from launcher.sentinel.hung import Silence, end_hung

# In every runner: on SIGUSR2 its main thread waits for a lock that it holds itself.
STUCK = """
import signal, sys, threading
if "launcher.runner" in sys.orig_argv:
    held = threading.Lock()
    signal.signal(signal.SIGUSR2, lambda *_: [held.acquire() for _ in range(2)])
"""


def test_a_runner_whose_main_thread_is_stuck_is_ended_and_another_one_goes_on(
    paid: PaidGround, attended: Attended, tmp_path: Path
) -> None:
    hang_and_go_on(paid, attended, tmp_path, signal.SIGUSR2)


def hang_and_go_on(paid: PaidGround, attended: Attended, tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    path = os.pathsep.join([str(tmp_path), paid.env["PYTHONPATH"]])
    process, run = begun(paid, attended, PYTHONPATH=path, LAUNCHER_HUNG_S="5,4")
    runner = attended.runner(run)
    os.kill(runner, how)
    attended.runner(run, but=runner)
    paid.let_go()
    code, outcome, err = ended(process)
    assert (code, outcome["state"]) == (0, "settled"), err
    assert outcome["training"]["steps"] == STEPS
    assert [(each["layer"], each["did"]) for each in outcome["rescues"]] == [("sentinel", "went on")]
    assert "the runner died (it hung: nothing was heard of it for 5 s, and its sentinel ended it)" in err
    assert_released(paid, run)
    assert paid.fast.starts("finetune") == 1
    attended.gone()


def test_silence_is_counted_in_looks_and_begins_anew_with_every_beat(tmp_path: Path) -> None:
    silence = Silence(tmp_path, look_s=60)  # three looks
    assert [silence.is_too_long() for _ in range(9)] == [False] * 9  # no runner ever said that it lives
    (tmp_path / FILE).touch()
    assert [silence.is_too_long() for _ in range(3)] == [False] * 3
    os.utime(tmp_path / FILE, (0, 1))  # years ago by the clock: it changed, that is all
    assert [silence.is_too_long() for _ in range(4)] == [False, False, False, True]
    assert not silence.is_too_long()


def test_nobody_is_ended_who_only_has_the_runners_lock_or_its_old_number(tmp_path: Path) -> None:
    """`launcher reap` holds the lock while it releases; the note of a dead runner may name anybody by now."""
    home = Home(tmp_path / "home")
    run_dir = home.run_dir("abc123")
    with runner_lock(run_dir) as mine:
        assert mine
        announce(run_dir)  # this very process
        assert not end_hung(str(home.root), "abc123", run_dir)
        for note in ({}, {"pid": 0}, {"pid": 1}, {"pid": -1}):
            (run_dir / "runner.json").write_text(json.dumps(note))
            assert not end_hung(str(home.root), "abc123", run_dir)
    assert not (run_dir / "runner.log").exists()
