"""Plays one case: a runner dies at a failpoint, the layers below do their work, and the bill says what came of it."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from launcher.clock import parse_iso
from launcher.ledger import LeaseState
from launcher.sentinel.marks import LOCK, is_guarded
from tests.faults.bystanders import launch_and_die, launched_again, without_sentinel
from tests.faults.cases import LAYER, Case
from tests.faults.field import SHORT_S, SKYPILOT, Copy, Field, until

STEP_S = {"runpod": 2, "vast": 2, "brev": 61}  # a billing step, and a second for the moment at which it was asked
PATIENCE_S = 600.0  # with what ends within a minute on a quiet machine
SKYPILOT_SHORT_S = 300.0  # SkyPilot sets a machine up for half a minute, on a busy machine for some
AFTER_S = 20.0  # from the deadline until a machine that ends itself must be gone
BREV_AFTER_S = 5.0  # there it may not: so long is looked whether it does
#: What is switched off, so that the layer in question is alone (a machine's own deadline is hours away in the first
#: two). The sentinel is not switched off for the lower layers: it dies, too, before its first act.
WITHOUT = {"resume": "sentinel,reaper", "sentinel": "reaper", "reaper": "watchdog", "watchdog": "reaper",
           "runner": "reaper", "again": "reaper"}  # fmt: skip
AND_THE_SENTINEL = ",sentinel@sentinel.rescue.before"


@dataclass
class Result:
    """What a case came to, by the cloud's bill; `faults` is empty where everything was kept."""

    case: Case
    reached: bool = True  # the run came to that failpoint
    alive_at_death: int = 0
    rescued_by: str = ""  # L0 … L3; none: no machine was alive
    alive_at_end: int = 0
    billed_usd: str = "0"
    ceiling_usd: str = "0"
    charged_usd: str = ""  # by our ledger, where it could say so
    state: str = ""
    seconds: float = 0.0
    commit: str = ""
    faults: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        held = {name: value for name, value in self.__dict__.items() if name != "case"}
        return {**self.case.told(), **held}


def play(ground: Field, case: Case, short_s: float = SHORT_S) -> Result:
    """Run one case to its end; never leaves a machine of it behind on the simulated cloud.

    `short_s`: the deadline, in seconds after the renting, of a case that is about what happens then.
    """
    began, short = time.monotonic(), case.rescue in ("reaper", "watchdog")
    if case.provider == SKYPILOT:
        short_s = max(short_s, SKYPILOT_SHORT_S)
    copy = (ground.empty(case.provider) if case.who == "launcher"
            else ground.copy(case.provider, case.recipe, short_s if short else None))  # fmt: skip
    result = Result(case, commit=ground.commit)
    fired = copy.root.parent / "fired"
    fired.mkdir()
    died = "launcher" if case.who == "launcher" else "runner"
    env = {
        "LAUNCHER_FAILPOINT": f"{died}@{case.point}" + (AND_THE_SENTINEL if case.who.startswith("both") else ""),
        "LAUNCHER_FAILPOINT_FIRED": str(fired), "LAUNCHER_WITHOUT": WITHOUT[case.rescue],
        "LAUNCHER_SENTINEL_PAUSES_S": "0.2,1,4",
    }  # fmt: skip
    try:
        _die(copy, case, result, env)
        _rescue(copy, case, result, env)
    finally:
        _judge(copy, result)
        for machine in copy.alive():
            ground.cloud.fault("host_death", machine=machine)
        ground.leave(copy)
        result.seconds = round(time.monotonic() - began, 1)
    return result


def _die(copy: Copy, case: Case, result: Result, env: dict[str, str]) -> None:
    """Bring whoever it is to the failpoint, and to their death."""
    if case.who in ("sentinel", "sentinel, runner"):
        runner, alive, wrong = without_sentinel(copy, case.point, env)
        result.reached = alive is not None and (case.who == "sentinel" or runner.returncode == -signal.SIGKILL)
        result.faults += wrong
        result.alive_at_death = (alive or 0) if case.who == "sentinel" else len(copy.alive())
        if case.who == "sentinel" and runner.returncode != 0:
            result.faults.append(f"the runner ended with {runner.returncode}")
        return
    if case.who == "launcher":
        program = launch_and_die(copy, copy.field.job(case.provider, case.recipe), case.point, env)
    else:
        program = copy.program("launcher.runner", str(copy.root), copy.run, **env)
    _, said = program.communicate(timeout=PATIENCE_S)
    if case.who.endswith("+server"):
        for lodging in copy.lodgings():
            lodging.end()
    result.alive_at_death = len(copy.alive())
    result.reached = program.returncode == -signal.SIGKILL
    if not result.reached:
        result.faults += [f"the {case.who} failed by itself: {said[-300:]}"] if "Traceback" in said else []
    if case.who.startswith("both") and until(lambda: not is_guarded(copy.home.run_dir(copy.run)), 60) is None:
        result.faults.append("the sentinel did not die")


def _rescue(copy: Copy, case: Case, result: Result, env: dict[str, str]) -> None:
    """Let the layer in question work, and those below it where it cannot."""
    how = {"resume": _resume, "reaper": _reap, "watchdog": _watchdog, "sentinel": _sentinel, "again": _again,
           "runner": _runner}  # fmt: skip
    how[case.rescue](copy, result, env)


def _resume(copy: Copy, result: Result, env: dict[str, str]) -> None:
    code, outcome, said = copy.verb("resume", copy.run, timeout_s=PATIENCE_S, **env)
    result.state = str(outcome.get("state", ""))
    if "Traceback" in said or (code != 0 and result.reached):
        result.faults.append(f"resume ended with {code}: {outcome.get('reason') or said[-300:]}")
    _credit(copy, result, "resume")


def _reap(copy: Copy, result: Result, env: dict[str, str]) -> None:
    """As a timer would: once the deadline is over, and again while something is pending."""
    _wait_for_deadline(copy)
    quiet = {**env, "LAUNCHER_WITHOUT": env["LAUNCHER_WITHOUT"].replace("reaper", "").strip(",")}
    for _ in range(3):
        code, _, said = copy.verb("reap", timeout_s=PATIENCE_S, **quiet)
        if "Traceback" in said:
            result.faults.append(f"reap: {said[-300:]}")
        if code == 0:
            break
    _credit(copy, result, "reaper")


def _watchdog(copy: Copy, result: Result, env: dict[str, str]) -> None:
    """Nobody of ours lives: the machine ends itself, or (never armed, no right to) is left to the reaper."""
    if copy.alive():
        _wait_for_deadline(copy)
        until(lambda: not copy.alive(), AFTER_S if copy.cloud != "brev" else BREV_AFTER_S)
    # Nothing on a machine of Brev's may end it: one that went had been told to by the runner, just before its death.
    _credit(copy, result, "watchdog" if copy.cloud != "brev" else "resume")
    _reap(copy, result, env)  # the books


def _runner(copy: Copy, result: Result, _env: dict[str, str]) -> None:
    """It has lived, and has come to its end."""
    _credit(copy, result, "runner")
    result.state = str(copy.ledger.run(copy.run).state)
    if result.state != "settled":
        result.faults.append(f"it ended as {result.state}")


def _again(copy: Copy, result: Result, env: dict[str, str]) -> None:
    """The runner, where one was started, needs nobody; the user launches the same job again."""
    result.faults += launched_again(copy, copy.field.job(result.case.provider, result.case.recipe), env)
    _credit(copy, result, "again")


def _sentinel(copy: Copy, result: Result, env: dict[str, str]) -> None:
    """It acts by itself: it starts another runner, which goes on from the journal."""
    if result.case.who == "sentinel, runner" and not _is_guarded_in(copy):  # its runner had not missed it yet
        _resume(copy, result, env)
        return
    if not (copy.home.run_dir(copy.run) / LOCK).exists():  # died before it had a sentinel, and so before it rented
        _credit(copy, result, "sentinel")
        return
    if until(lambda: _is_over(copy), PATIENCE_S) is None and result.reached:
        result.faults.append(f"the sentinel did not bring it to an end within {PATIENCE_S:.0f} s")
    _credit(copy, result, "sentinel")
    run = copy.ledger.run(copy.run)
    result.state = str(run.state)
    if result.state != "settled":
        result.faults.append(f"the sentinel ended it as {run.state}: {run.reason}")


def _is_guarded_in(copy: Copy) -> bool:
    return is_guarded(copy.home.run_dir(copy.run))


def _is_over(copy: Copy) -> bool:
    run = copy.ledger.run(copy.run)
    return run.over and run.outcome is not None and not copy.alive()


def _wait_for_deadline(copy: Copy) -> None:
    held = copy.ledger.reservation(copy.run)
    leases = copy.leases()
    if leases and held is not None and not held.settled_at:
        ends = max(parse_iso(lease.deadline) for lease in leases)
        time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds() + 0.5))


def _credit(copy: Copy, result: Result, rescue: str) -> None:
    """The first layer after which nothing is alive has made the rescue."""
    if not result.rescued_by and not result.alive_at_death:
        result.rescued_by = "none"
    elif not result.rescued_by and not copy.alive():
        result.rescued_by = LAYER[rescue]


def _judge(copy: Copy, result: Result) -> None:
    """Leaks and overcharges, by the bill; and whether our books say the same."""
    result.alive_at_end, billed = len(copy.alive()), copy.billed()
    result.billed_usd, result.ceiling_usd = str(billed), str(copy.ceiling)
    if result.alive_at_end:
        result.faults.append(f"LEAK: {', '.join(copy.alive())}")
    if billed > copy.ceiling:
        result.faults.append(f"OVERCHARGE: ${billed} of ${copy.ceiling}")
    open_leases = [lease.label for lease in copy.leases() if lease.state is not LeaseState.RELEASED]
    if open_leases and result.rescued_by not in ("", "none"):
        result.faults.append(f"the ledger does not say released: {', '.join(open_leases)}")
    charged = copy.charged()
    result.charged_usd = str(charged)
    step = sum((Decimal(str(row["usd_per_hour"])) * STEP_S[row["provider"]] / 3600 for row in copy.machines()),
               Decimal(0))  # fmt: skip
    if not open_leases and copy.machines():
        if charged < billed - step:
            result.faults.append(f"UNDERBOOKED: the ledger says ${charged}, the bill ${billed}")
        elif charged > copy.ceiling:  # above the bill it may be: what went by itself is booked until it was seen gone
            result.faults.append(f"OVERBOOKED: the ledger says ${charged} of ${copy.ceiling}, the bill ${billed}")
    if (left := [one.label for one in copy.lodgings() if one.exists or one.processes()]) and not open_leases:
        result.faults.append(f"SkyPilot's home or server was left: {', '.join(left)}")
    keys = list((copy.root / "runs" / copy.run / "keys").rglob("key"))
    if keys and not open_leases and result.rescued_by == "L0" and result.case.rescue != "watchdog":
        result.faults.append("the lease's ssh key was left")
