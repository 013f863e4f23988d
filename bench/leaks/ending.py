"""Rows about a machine's end: its agent, the provider, its clock, everything else dead, and nothing wrong at all."""

from __future__ import annotations

import threading
import time
from typing import Any

from bench.leaks.ours import Ours, end_of
from bench.leaks.plain import L40S, Plain
from bench.leaks.row import (
    DOWN,
    PROMPT_S,
    REFUSED_S,
    SHORT_S,
    WORK,
    WORK_S,
    ended,
    gone,
    last_lines,
    last_step,
    told,
    wait,
)
from bench.leaks.side import Seen, Side, until

# -- the node's agent is killed --------------------------------------------------------------------------------------


def plain_agent(plain: Plain) -> Seen:
    process = plain.launch(WORK, *DOWN)
    machine = plain.side.first(process)
    at, code = ended(plain.side, machine), wait(process)
    killed = plain.side.kill_agent(machine)
    return Seen("sky launch --down -i 1; skylet killed on the machine once the command came back", code,
                last_lines(plain.log, 1), at, {"killed": killed})  # fmt: skip


def ours_agent(ours: Ours) -> Seen:
    process = ours.start(ours.job(evaluate_s=WORK_S))
    machine = ours.side.first(process)
    until(lambda: ours.side.inside(machine, "ls /tmp/trace.jsonl 2>/dev/null"))
    killed = ours.side.kill_agent(machine)
    code, outcome, err = end_of(process)
    did = "launcher run; skylet killed on the machine while it worked"
    return Seen(did, code, told(code, outcome, err), last_step(ours), {"killed": killed})


# -- the provider refuses to delete ----------------------------------------------------------------------------------


def refuse(side: Side, begin: float) -> threading.Thread:
    """Have deletes refused from now on, and no more `REFUSED_S` after `begin`."""
    side.cloud.fault("delete_refused", provider="runpod", count="always")

    def clear() -> None:
        time.sleep(max(0.0, begin + REFUSED_S - time.time()))
        side.cloud.fault("clear")

    thread = threading.Thread(target=clear, daemon=True)
    thread.start()
    return thread


def plain_refused(plain: Plain) -> Seen:
    assert wait(plain.launch(WORK)) == 0, plain.log[-1000:]
    at = time.time()
    refusal = refuse(plain.side, at)
    done = plain.sky("down", "-y", plain.cluster)
    alive = len(plain.side.alive())
    refusal.join()
    assert plain.side.cloud.events("struck"), "no delete was refused"
    return Seen(f"sky launch, then sky down -y; deletes refused for {REFUSED_S:.0f} s", done.returncode,
                last_lines(done.stdout), at, {"alive_when_it_came_back": alive})  # fmt: skip


def ours_refused(ours: Ours) -> Seen:
    process = ours.start(ours.job())
    until(lambda: any(row.get("step", "runner") != "runner" for row in ours.events()))
    refusal = refuse(ours.side, time.time() + 15)
    code, outcome, err = end_of(process)
    alive = len(ours.side.alive())
    refusal.join()
    assert ours.side.cloud.events("struck"), "no delete was refused"
    return Seen(f"launcher run; deletes refused for {REFUSED_S:.0f} s", code, told(code, outcome, err),
                last_step(ours), {"alive_when_it_came_back": alive})  # fmt: skip


def told_if_it_bills(record: dict[str, Any]) -> str:
    """Gone in the end, and never success said while it billed."""
    if record["facts"]["alive_when_it_came_back"] and record["exit"] == 0:
        return "exit 0 while the machine billed" + (f"; {gone(record)}" if gone(record) else "")
    return gone(record)


# -- the clock that is to end the machine is started again -----------------------------------------------------------


def plain_clock(plain: Plain) -> Seen:
    armed = {"idle_minutes": 2, "down": True, "wait_for": "none"}
    code = wait(plain.launch("sleep 3600", "-d", resources={**L40S, "autostop": armed}))
    promised = time.time() + 60 * 3  # whole minutes: it fires 2 to 3 minutes later
    said = last_lines(plain.log)
    for _ in range(4):
        time.sleep(50)
        plain.sky("exec", plain.cluster, "-d", "true")
    return Seen("sky launch (autostop: idle_minutes: 2, down, wait_for: none); sky exec once a minute, four times",
                code, said, promised)  # fmt: skip


def ours_clock(ours: Ours) -> Seen:
    machine, deadline = alone(ours)
    started = "from sky.skylet import autostop_lib as a; a.set_last_active_time_to_now()"
    while time.time() < deadline and ours.side.alive():
        ours.side.inside(machine, f"/root/skypilot-runtime/bin/python -c '{started}'")
        time.sleep(20)
    did = (
        f"launcher run with a deadline of {SHORT_S} s; runner and sentinel killed while it worked; the clock of "
        "SkyPilot's agent started again every 20 s"
    )
    return Seen(did, None, "", deadline)


def alone(ours: Ours) -> tuple[str, float]:
    """A machine at work with nobody of ours alive outside of it: (which, its deadline)."""
    run, process = ours.begin_short(ours.job(step_s=1.0, steps=3600), SHORT_S)
    machine = ours.side.first(process)
    until(lambda: process.poll() is not None or ours.side.inside(machine, "ls /tmp/trace.jsonl 2>/dev/null"))
    if process.poll() is not None:  # on a busy machine SkyPilot takes longer than so short a run leaves it
        raise RuntimeError(f"the runner ended with {process.poll()} before anything worked: play it with --jobs 1")
    ours.kill_all(run)
    return machine, ours.deadline(run)


def on_time(record: dict[str, Any]) -> str:
    """Gone when it was said to be."""
    if record["needless_s"] > PROMPT_S:
        still = ", and still bills" if record["alive"] else ""
        return f"billed {record['needless_s']:.0f} s past the end that was set{still}"
    return gone(record)


# -- nobody is left but the machine ----------------------------------------------------------------------------------


def plain_alone(plain: Plain) -> Seen:
    process = plain.launch(f"touch /root/began; sleep {2 * WORK_S}; {WORK}", *DOWN)
    machine = plain.side.first(process)
    until(lambda: plain.side.inside(machine, "ls /root/began 2>/dev/null"))
    process.kill()
    process.wait()
    plain.kill_server(process.pid)
    plain.side.kill_agent(machine)
    at = ended(plain.side, machine)
    return Seen("sky launch --down -i 1; client, API server and skylet killed while the job ran", None, "", at)


def ours_alone(ours: Ours) -> Seen:
    machine, deadline = alone(ours)
    killed = ours.side.kill_agent(machine)
    time.sleep(max(0.0, deadline - time.time()))
    return Seen(f"launcher run with a deadline of {SHORT_S} s; runner, sentinel and skylet killed while it worked",
                None, "", deadline, {"killed": killed})  # fmt: skip


# -- the job has ended -----------------------------------------------------------------------------------------------


def plain_end(plain: Plain) -> Seen:
    process = plain.launch(WORK, *DOWN)
    at = ended(plain.side, plain.side.first(process))
    code = wait(process)
    return Seen("sky launch --down -i 1", code, last_lines(plain.log), at)


def ours_end(ours: Ours) -> Seen:
    code, outcome, err = ours.run(ours.job(evaluate_s=WORK_S / 2))
    return Seen("launcher run", code, told(code, outcome, err), last_step(ours))


def prompt(record: dict[str, Any]) -> str:
    """Gone, and soon after the work was done."""
    if record["needless_s"] > PROMPT_S:
        return f"billed {record['needless_s']:.0f} s after the job's end"
    return gone(record)
