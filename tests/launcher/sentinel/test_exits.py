"""How runner and verbs end by signals, closed streams and want of memory: in order, by the contract's exit codes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess

import psutil
import pytest
from attended import Attended
from paid import PaidGround
from test_sentinel import assert_released, begun, ended

from launcher.ledger import RunState


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_the_runner_releases_now_in_order(
    paid: PaidGround, attended: Attended, signum: signal.Signals
) -> None:
    """SIGTERM is tested where it is followed by SIGKILL; SIGHUP, which changes nothing, with a closed terminal."""
    process, run = begun(paid, attended)
    os.kill(attended.runner(run), signum)
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
    code, outcome, err = ended(process)
    assert (code, outcome["released"]) in ((0, True), (5, True)), err
    assert outcome["state"] in ("settled", "failed")
    assert_released(paid, run)
    attended.gone()


def test_when_both_are_killed_reap_releases_at_the_deadline(paid: PaidGround, attended: Attended) -> None:
    process, run = begun(paid, attended)
    attended.kill(attended.sentinel(run))
    attended.kill(attended.runner(run))
    assert ended(process)[0] == 6  # nobody is left who releases it: that may still bill
    ledger = paid.ledger
    (lease,) = ledger.leases(run)
    with ledger.writing() as db:
        db.exec_driver_sql("UPDATE leases SET deadline = '2020-01-01T00:00:00.000Z'")
    code, told, err = paid.run("reap")
    assert code == 0, err
    assert [each["label"] for each in told["released"]] == [lease.label]
    assert_released(paid, run)
    assert json.loads(json.dumps(paid.run("status", run)[1]["runs"][0]))["guarded"] is False
