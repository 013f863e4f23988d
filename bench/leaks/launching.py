"""Rows about a launch that goes wrong: its set-up, its server, its user, its ssh."""

from __future__ import annotations

import signal
import time

from bench.leaks.ours import Ours, end_of
from bench.leaks.plain import Plain
from bench.leaks.row import DOWN, PATIENCE_S, WATCH_S, WORK, last_lines, last_step, told, wait
from bench.leaks.side import Seen

# -- the set-up of the machine fails ---------------------------------------------------------------------------------


def plain_setup(plain: Plain) -> Seen:
    code = wait(process := plain.launch(WORK, *DOWN))
    assert process
    return Seen("sky launch --down -i 1", code, last_lines(plain.log))


def ours_setup(ours: Ours) -> Seen:
    code, outcome, err = ours.run(ours.job())
    return Seen("launcher run", code, told(code, outcome, err))


# -- the API server is killed while it launches ----------------------------------------------------------------------


def plain_server(plain: Plain) -> Seen:
    process = plain.launch(WORK, *DOWN)
    plain.side.first(process)
    killed, at = plain.kill_server(process.pid), time.time()
    code = wait(process, 180)
    return Seen("sky launch --down -i 1; its API server killed once the machine billed", code, last_lines(plain.log),
                at, {"killed": killed})  # fmt: skip


def ours_server(ours: Ours) -> Seen:
    process = ours.start(ours.job())
    machine = ours.side.first(process)
    killed = ours.kill_server()
    code, outcome, err = end_of(process)
    (row,) = (row for row in ours.side.rows() if str(row["id"]) == machine)
    facts = {"killed": killed, "first_machine_ended": row["ended"]}
    needed = last_step(ours) if code == 0 else None
    return Seen("launcher run; the same", code, told(code, outcome, err), needed, facts)


# -- Ctrl-C, and cancel, after the create ----------------------------------------------------------------------------


def plain_cancel(plain: Plain) -> Seen:
    process = plain.launch(WORK, *DOWN)
    plain.side.first(process)
    process.send_signal(signal.SIGINT)
    at = time.time()
    code = wait(process, 60)
    cancelled = plain.sky("api", "cancel", "-a", "-y")
    said = f"{last_lines(plain.log, 2)} / {last_lines(cancelled.stdout, 1)}"
    return Seen("sky launch --down -i 1; Ctrl-C once the machine billed; sky api cancel -a -y", code, said, at,
                {"cancel_exit": cancelled.returncode})  # fmt: skip


def ours_cancel(ours: Ours) -> Seen:
    process = ours.start(ours.job())
    ours.side.first(process)
    process.send_signal(signal.SIGINT)
    at = time.time()
    code, outcome, err = end_of(process)
    return Seen("launcher run; Ctrl-C once the machine billed", code, told(code, outcome, err), at)


# -- ssh never opens -------------------------------------------------------------------------------------------------


def plain_ssh(plain: Plain) -> Seen:
    plain.side.cloud.fault("never_ssh", provider="runpod", count="always")
    process = plain.launch(WORK, *DOWN)
    plain.side.first(process)
    code = wait(process, 1.5 * WATCH_S)
    said = last_lines(plain.log) + (" (it is still waiting)" if code is None else "")
    return Seen("sky launch --down -i 1", code, said)


def ours_ssh(ours: Ours) -> Seen:
    ours.side.cloud.fault("never_ssh", provider="runpod", count="always")
    job = ours.job(f"providers: [runpod], via: skypilot, gpus: [L40S], provision_timeout_s: {PATIENCE_S}")
    code, outcome, err = ours.run(job)
    return Seen(f"launcher run (provision_timeout_s: {PATIENCE_S})", code, told(code, outcome, err))
