"""How runner and verbs end by signals, closed streams and want of memory: in order, by the contract's exit codes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess

import psutil
from attended import Attended
from paid import PaidGround
from test_sentinel import assert_released, begun, ended

from launcher.ledger import RunState


def test_sigquit_to_the_runner_releases_now_in_order(paid: PaidGround, attended: Attended) -> None:
    """SIGINT is handled by the same lines, SIGTERM followed by SIGKILL; SIGHUP, which changes nothing, on hang-up."""
    process, run = begun(paid, attended)
    os.kill(attended.runner(run), signal.SIGQUIT)
    code, outcome, err = ended(process)
    assert (code, outcome["state"], outcome["reason"]) == (130, "cancelled", "interrupted; released at once"), err
    assert outcome["rescues"] == []
    assert_released(paid, run)


def test_a_verb_that_nobody_hears_follows_its_run_to_its_code(paid: PaidGround, attended: Attended) -> None:
    process, run = begun(paid, attended)
    process.stdout.close()
    process.stderr.close()
    (attended.dir(run) / "events.jsonl").open("ab").write(b'{"t": "x", "kind": "warning", "message": "to nobody"}\n')
    attended.far(run, 20)
    assert process.poll() is None
    paid.let_go()
    assert process.wait(60) == 0
    assert paid.ledger.run(run).state is RunState.SETTLED
    assert_released(paid, run)


def test_without_any_standard_stream_it_rents_runs_and_releases(paid: PaidGround, attended: Attended) -> None:
    command = paid.launcher.start("run", paid.job(), "--offers", paid.offers_file, "--confirm", "YES",
                                  "--max-cost", "5", **paid.env)  # fmt: skip
    command.kill()
    command.communicate()
    argv = " ".join(map(str, command.args))
    done = subprocess.run(["sh", "-c", f"exec {argv} <&- >&- 2>&-"], cwd=paid.fast.folder, check=False, timeout=120,
                          env={**os.environ, **paid.env, "PYTHONPATH": paid.env["PYTHONPATH"]})  # fmt: skip
    assert done.returncode == 0
    run = attended.only()
    assert paid.ledger.run(run).state is RunState.SETTLED
    assert_released(paid, run)


def test_a_runner_out_of_memory_leaves_nothing_rented(paid: PaidGround, attended: Attended) -> None:
    process, run = begun(paid, attended)
    runner = psutil.Process(attended.runner(run))
    held = runner.memory_info().vms
    runner.rlimit(resource.RLIMIT_AS, (held, held))  # not one page more
    paid.let_go()
    code, outcome, err = ended(process)
    assert (code, outcome["released"]) in ((0, True), (5, True)), err
    assert outcome["state"] in ("settled", "failed")
    assert_released(paid, run)
    attended.gone()
