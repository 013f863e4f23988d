"""Random schedules: provider faults in any mixture, deaths at random microseconds, and whoever goes on afterwards.

`python -m tests.faults.schedules [COUNT] [--jobs 4]` plays COUNT of them and keeps what each came to in
bench/results/schedules.jsonl. A state machine of Hypothesis draws the steps; each job has a cloud of its own, since a
fault strikes a provider and not a case, and most of a schedule is waiting. Its seed draws the same steps again; what
they meet depends on the clock, so each row says what was done.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from launcher.failpoints import LOG
from launcher.ledger import Lease
from launcher.sentinel.marks import NOTE, is_guarded
from recipes.supervise import is_held, read_json
from tests.faults.field import REPO, Copy, Field, until
from tests.faults.program import Program
from tests.faults.table import write_table

RESULTS = REPO / "bench" / "results" / "schedules.jsonl"
STEPS = 5  # the beginning, with a first death, is one
#: When somebody dies: at any microsecond of the first twelve seconds of a run that takes ten on a quiet machine, each
#: as likely as any other. Hypothesis draws from a range mostly its ends, so what it draws is the seed of the moment.
MOMENTS_US = st.integers(0, 2**32 - 1).map(lambda drawn: random.Random(drawn).randrange(12_000_000))
QUIET_S = 10.0  # a run of this job on a quiet machine
MOST_PACE = 5.0  # all jobs begin at once, which is slower than what follows
PATIENCE_S = 600.0  # with what ends in a minute on a quiet machine
WHOM = st.sampled_from(["runner", "sentinel", "both"])
#: Hypothesis begins with the simplest that it can think of, and with what is nearly so. So of each seed one schedule
#: is played, after so many that were only drawn.
UNPLAYED = 40
BEGUN_MINUTES_USD = Decimal("0.03")  # Brev's, at the end of each of its machines
PASSING = (
    {"fault": "error", "operation": "list", "count": 3}, {"fault": "rate_limited", "count": 3},
    {"fault": "error_after_create"}, {"fault": "sold_out", "listed": True}, {"fault": "price_change", "factor": 2.0},
    {"fault": "empty_list", "count": 2}, {"fault": "partial_list", "count": 2}, {"fault": "malformed_list"},
    {"fault": "wrong_account"}, {"fault": "delete_refused", "count": 2}, {"fault": "delete_ignored"},
    {"fault": "listing_lag", "seconds": 5.0}, {"fault": "partition", "seconds": 8.0},
    {"fault": "slow_link", "mbit": 2.0},
)  # fmt: skip
#: Who made the last delete, by the program that began it all and the module that was at work.
_LAYERS = {"resume": "L0", "reap": "L2"}

KEPT = os.environ.get("LAUNCHER_FAULTS_KEPT")  # a folder for the homes of those that had a fault

Keep = Callable[[dict[str, Any]], None]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine_of(ground: Field, number: int, keep: Keep, pace: float) -> type[RuleBasedStateMachine]:
    """The state machine, bound to a cloud; `keep` is given what each schedule came to.

    `pace`: how many times as long as on a quiet machine everything takes here; deaths come as much later.
    """
    turns = itertools.count()

    class Schedule(RuleBasedStateMachine):
        """One run, from its reservation to the proof that nothing of it is left."""

        @initialize(
            provider=st.sampled_from(["runpod", "vast", "brev"]), ends=st.sampled_from(["sentinel", "resume"]),
            faults=st.lists(st.sampled_from(PASSING), max_size=2), after_us=MOMENTS_US, whom=WHOM,
        )  # fmt: skip
        def begin(self, provider: str, ends: str, faults: list[dict[str, object]], after_us: int, whom: str) -> None:
            self.plays = next(turns) == UNPLAYED
            if not self.plays:
                return
            self.since, self.provider, self.ends = time.monotonic(), provider, ends
            self.runners: list[Program] = []
            self.killed = self.alive_at_death = 0
            self.steps: list[str] = []
            self.faults: list[str] = []
            self.logs: list[tuple[str, int, Path]] = []
            self._act(self._settle_in)
            self._act(lambda: [self._strike(fault) for fault in faults])
            self._act(self._go_on)
            self._act(lambda: self._die(after_us, whom))

        def _settle_in(self) -> None:
            self.copy: Copy = ground.copy(self.provider, "evaluate")

        def _act(self, what: Callable[[], object]) -> None:
            """Do it, where this schedule is played and nothing here is broken; no draw depends on it."""
            if self.plays and not self.broken:
                try:
                    what()
                except Exception as error:  # noqa: BLE001  a schedule that cannot be played says nothing of the product
                    self.broken = True
                    say(f"seed {number} could not be played: {type(error).__name__}: {error}")

        @rule(fault=st.sampled_from(PASSING))
        def strike(self, fault: dict[str, object]) -> None:
            self._act(lambda: self._strike(fault))

        def _strike(self, fault: dict[str, object]) -> None:
            # Who is of another organization when he rents at Brev has rented there, and can prove nothing elsewhere;
            # of organizations that can be rented in the simulation has one.
            if self.provider == "brev" and fault["fault"] == "wrong_account" and not self.copy.machines():
                return
            self.steps.append(str(fault["fault"]))
            how = {name: value for name, value in fault.items() if name != "fault"}
            ground.cloud.fault(str(fault["fault"]), provider=self.provider, **how)

        @rule()
        def go_on(self) -> None:
            """Where another runner lives this one has to find it, and to leave."""
            self._act(self._go_on)

        def _go_on(self) -> None:
            self.steps.append("go on")
            env = self._env("run")
            program = self.copy.program("launcher.runner", str(self.copy.root), self.copy.run, **env)
            self.runners.append(program)
            self.logs[-1] = ("run", program.pid, self.logs[-1][2])

        @rule(after_us=MOMENTS_US, whom=WHOM)
        def die(self, after_us: int, whom: str) -> None:
            """The run's runner of then, be it the first or one that its sentinel has started; its sentinel; both."""
            self._act(lambda: self._die(after_us, whom))

        def _die(self, drawn_us: int, whom: str) -> None:
            after_us = round(drawn_us * pace)
            self.steps.append(f"{whom} dies after {after_us} us")
            time.sleep(after_us / 1e6)
            folder, before = self.copy.home.run_dir(self.copy.run), self.killed
            alive = bool(self.copy.alive())
            if whom != "runner" and is_guarded(folder):
                self._kill((read_json(folder / NOTE) or {}).get("pid"))
            if whom != "sentinel":
                living = [program for program in self.runners if program.poll() is None]
                for program in living:
                    self._kill(program.pid)
                    program.communicate()
                if not living and is_held(folder / "runner.lock"):
                    self._kill((read_json(folder / "runner.json") or {}).get("pid"))
            self.alive_at_death += alive and self.killed > before

        @rule()
        def reap(self) -> None:
            self._act(self._reap)

        def _reap(self) -> None:
            self.steps.append("reap")
            self._verb("reap")

        def _kill(self, pid: object) -> None:
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                if isinstance(pid, int):
                    os.kill(pid, signal.SIGKILL)
                    self.killed += 1

        def _env(self, program: str) -> dict[str, str]:
            log = self.copy.root.parent / f"{len(self.logs)}-{program}.log"
            self.logs.append((program, 0, log))
            return {LOG: str(log), "LAUNCHER_SENTINEL_PAUSES_S": "0.2,1,4"}

        def _verb(self, *words: str) -> int:
            try:
                code, outcome, said = self.copy.verb(*words, timeout_s=PATIENCE_S, **self._env(words[0]))
            except TimeoutError as error:
                self.faults.append(f"{words[0]}: {error}")
                return 1
            if "Traceback" in said:
                self.faults.append(f"{words[0]}: {said[-300:]}")
            self.said = f"{words[0]} ended with {code}: {outcome.get('reason') or said[-200:]}"
            return code

        def teardown(self) -> None:
            if not self.plays or not hasattr(self, "copy"):
                return
            try:
                self._end()
                self._judge()
            except Exception as error:  # noqa: BLE001  a schedule that cannot be judged is a fault, not the end of all
                self.faults.append(f"could not be judged: {type(error).__name__}: {error}")
            finally:
                if self.faults and KEPT:
                    shutil.copytree(self.copy.root.parent, Path(KEPT) / str(number), symlinks=True)
                ground.cloud.fault("end_all")
                ground.leave(self.copy)
                if not self.broken:
                    keep(self._told())

        def _end(self) -> None:
            folder = self.copy.home.run_dir(self.copy.run)
            ground.cloud.fault("clear")
            if self.ends == "sentinel" and is_guarded(folder):
                self.steps.append("left to the sentinel")
                if until(lambda: self._over() or not is_guarded(folder), PATIENCE_S) is None:
                    self.faults.append(f"the sentinel did not bring it to an end within {PATIENCE_S:.0f} s")
            for number, program in enumerate(self.runners, 1):
                try:
                    program.communicate(timeout=PATIENCE_S)
                except TimeoutError as error:
                    self.faults.append(f"runner {number}: {error}")
            if not self._over():
                self.steps.append("resume")
                for _ in range(3):  # what a fault has left pending, the next one ends
                    if self._verb("resume", self.copy.run) != 6:
                        break
            until(lambda: not is_guarded(folder), 60)  # it goes by itself when nothing is left

        def _over(self) -> bool:
            run = self.copy.ledger.run(self.copy.run)
            return run.over and run.outcome is not None and not self.copy.alive()

        def _judge(self) -> None:
            alive, billed, ceiling = self.copy.alive(), self.copy.billed(), self.copy.ceiling
            if alive:
                self.faults.append(f"LEAK: {', '.join(alive)} ({self.said})")
            if billed > ceiling:
                self.faults.append(f"OVERCHARGE: ${billed} of ${ceiling}")
            spent = self.copy.ledger.spent(self.copy.run)
            if spent > ceiling + BEGUN_MINUTES_USD:
                self.faults.append(f"OVERBOOKED: the ledger says ${spent} of ${ceiling}")
            held = [lease for lease in self.copy.leases() if str(lease.state) != "released"]
            left = [str(lease.state) for lease in held]
            if left and all(_is_anothers(lease) for lease in held):
                self.steps.append("pending: rented with a login that does not come back")
            elif left and not alive:
                self.faults.append(f"the ledger does not say released: {', '.join(left)} ({self.said})")
            run = self.copy.ledger.run(self.copy.run)
            self.row = {
                "alive_at_end": len(alive), "billed_usd": str(billed), "ceiling_usd": str(ceiling),
                "charged_usd": str(spent), "state": str(run.state), "machines": len(self.copy.machines()),
                "rescued_by": self._rescued_by(),
            }  # fmt: skip

        def _rescued_by(self) -> str:
            """The layer that made the last delete; none where no death found a machine alive."""
            by = "none"
            for program, pid, log in self.logs if self.alive_at_death else ():
                rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
                for who, which, _, name in rows:
                    if name == "provider.destroy.before":
                        mine = "L2" if who == "launcher" else _LAYERS.get(program, "")
                        by = mine or ("L0" if int(which) == pid else "L1")
            return by

        def _told(self) -> dict[str, Any]:
            return {
                "seed": number, "provider": self.provider, "steps": self.steps, "killed": self.killed,
                "alive_at_death": self.alive_at_death, **getattr(self, "row", {"alive_at_end": 0, "rescued_by": ""}),
                "seconds": round(time.monotonic() - self.since, 1), "faults": self.faults,
            }  # fmt: skip

        plays, said, broken = False, "", False

    return Schedule


def _is_anothers(lease: Lease) -> bool:
    """Whether a machine was rented while the provider said that we are somebody else, as it says no more afterwards.

    What the account of now says proves nothing about a machine of another: its release stays pending, and says so.
    """
    facts = (lease.machine or {}).get("facts", {})
    return any("strang" in str(facts.get(name, "")) for name in ("account", "org"))  # so the simulated cloud calls it


def play(ground: Field, number: int, keep: Keep, pace: float = 1.0) -> None:
    """The schedule that belongs to this number."""
    made = seed(number)(machine_of(ground, number, keep, pace))
    run_state_machine_as_test(made, settings=settings(  # type: ignore[no-untyped-call]
        max_examples=UNPLAYED + 1, stateful_step_count=STEPS, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), print_blob=True, database=None,
    ))  # fmt: skip


def pace_of(ground: Field) -> float:
    """One run that nobody disturbs: how many times as long it takes as on a quiet machine (at most MOST_PACE)."""
    copy, began = ground.copy("runpod", "evaluate"), time.monotonic()
    copy.program("launcher.runner", str(copy.root), copy.run).communicate(PATIENCE_S)
    ground.leave(copy)
    return min(MOST_PACE, max(1.0, (time.monotonic() - began) / QUIET_S))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.schedules", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="clouds at once")
    parser.add_argument("--seed", type=int, help="of the first; a random one by default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pace", type=float, help="how many times slower than a quiet machine this one is; measured")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin none after so long")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("A simulated machine is made of namespaces, which needs root. Fix: run as root.\n")
        return 2
    first = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    ends = time.monotonic() + 60 * asked.minutes
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    stopped = spawn.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())  # begin no more, and leave nothing standing
    with ProcessPoolExecutor(asked.jobs, spawn, _share_stop, (stopped,)) as pool:
        shares = [range(first + job, first + asked.count, asked.jobs) for job in range(asked.jobs)]
        bad = sum(pool.map(_play_share, shares, *([one] * asked.jobs for one in (asked.results, ends, asked.pace))))
    write_table(RESULTS.with_name("faults.jsonl"))
    return 1 if bad else 0


_stopped: Any = None  # a job's look at whether all were told to stop


def _share_stop(stopped: Any) -> None:
    global _stopped  # noqa: PLW0603  given once, when the job's process begins
    _stopped = stopped
    signal.signal(signal.SIGTERM, lambda *_: None)  # not SIG_IGN: what is started here must not inherit it


def _play_share(share: range, results: Path, ends: float, pace: float | None) -> int:
    """One job's schedules on its own cloud; how many had a fault."""
    bad = 0

    def keep(row: dict[str, Any]) -> None:
        nonlocal bad
        bad += bool(row["faults"])
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        how = "; ".join(row["faults"]) or f"by {row['rescued_by']}"
        say(f"{row['provider']} {', '.join(row['steps'])}: {how} ({row['seconds']:.0f} s)")

    with tempfile.TemporaryDirectory(prefix="launcher-schedules-", ignore_cleanup_errors=True) as folder:
        ground = Field(Path(folder))
        try:
            pace = pace or pace_of(ground)
            for number in share:
                if time.monotonic() < ends and not _stopped.is_set():
                    try:
                        play(ground, number, keep, pace)
                    except Exception as error:  # noqa: BLE001  one that could not be begun ends no other
                        say(f"seed {number} could not be played: {type(error).__name__}: {error}")
        finally:
            ground.close()
    return bad


if __name__ == "__main__":
    sys.exit(main())
