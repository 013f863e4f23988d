"""Many launchers at once against one budget, killed at random: `python storm.py HOME PROCESSES ROUNDS SEED`.

Each process takes runs from planned to settled as `run` and its runner do, by the ledger's own calls, with a runner's
lock held. The parent kills one every few words it hears, starts another in its place, and reaps. All the while the
oracle reads the tables itself, in one snapshot, and adds up; at the end it goes through the whole journal by event.
Then some processes hold money and live, others held it and are dead: `reap` must find every dead one's, and only
those.
Prints what happened as one JSON object; an assertion ends it otherwise.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from oracle import Books, replay

from launcher.errors import RefusedError
from launcher.home import Home
from launcher.ledger import Caps, LeaseState, Ledger, RunState
from launcher.money import ZERO, Usd
from launcher.reaper import reap
from launcher.runner.control import runner_lock

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEGAN = time.monotonic()
DEADLINE = "2026-11-20T14:00:00.000Z"


class Clock:
    """Noon of one day, and how long this has taken: the day does not end meanwhile."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return NOON + self.ahead + timedelta(seconds=time.monotonic() - BEGAN)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


class Worker:
    """One launcher after another, in a process of its own."""

    def __init__(self, home: Home, caps: Caps, batch: str | None, number: int, seed: int, words: int) -> None:
        self.home, self.caps, self.batch, self.number, self.words = home, caps, batch, number, words
        self.rng = random.Random(seed)
        self.ledger = Ledger.open(home, Clock(), random.Random(seed))

    def tell(self, word: str, run: str = "-", amount: Usd = ZERO) -> None:
        os.write(self.words, f"{self.number} {word} {run} {amount:f}\n".encode())  # shorter than a pipe's atom

    def amount(self, most: str) -> Usd:
        return Usd(self.rng.randrange(1, int(Usd(most) * 1_000_000))) * Usd("0.000001")

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.round()
            self.tell("round")
        self.tell("done", str(os.getpid()))

    def round(self) -> None:
        ledger, rng = self.ledger, self.rng
        run, _ = ledger.create_run(f"{rng.getrandbits(64)}", {}, "d", batch=self.batch)
        with runner_lock(self.home.run_dir(run.run)) as mine:
            assert mine
            if ledger.run(run.run).over:  # between its first word and its lock it looked dead
                self.tell("reaped", run.run)
                return
            ceiling = self.amount("1.5")
            if not self.reserve(run.run, ceiling):
                return
            if rng.random() < 0.3:
                extra = self.amount("0.5")
                try:
                    ledger.extend(run.run, extra, self.caps)
                    self.tell("extended", run.run, extra)
                except RefusedError as error:
                    self.tell(f"refused:{error.facts['cap']}", run.run)
            ledger.move_run(run.run, RunState.RESERVED)
            if rng.random() < 0.15:
                ledger.cancel_reservation(run.run)
                ledger.move_run(run.run, RunState.CANCELLED, reason="no machine", exit_code=130)
                self.tell("cancelled", run.run)
                return
            ledger.move_run(run.run, RunState.RUNNING)
            for _ in range(rng.choice([1, 1, 2])):
                lease = ledger.intend_lease(
                    run.run, provider="local", account="a", offer_id="o", max_usd_per_hour=Usd("0.40"),
                    reserved=ceiling, deadline=DEADLINE,
                )  # fmt: skip
                ledger.move_lease(lease.lease, LeaseState.RELEASED, proof=["absent", "absent"])
                cost = Usd(ceiling * rng.randrange(0, 3)) * Usd("0.01")
                ledger.charge(lease, cost, "rate x time")
                self.tell("charged", run.run, cost)
            held = ledger.reservation(run.run)
            assert held is not None and not held.settled_at, "nobody frees what a living runner holds"
            ledger.move_run(run.run, RunState.COLLECTED)
            ledger.move_run(run.run, RunState.SETTLED, exit_code=0)
            ledger.settle(run.run)
            self.tell("settled", run.run)

    def reserve(self, run: str, ceiling: Usd) -> bool:
        self.ledger.move_run(run, RunState.APPROVED)
        try:
            self.ledger.reserve(run, self.caps, ceiling)
        except RefusedError as error:
            self.ledger.move_run(run, RunState.REFUSED, reason=error.problem, exit_code=4)
            self.tell(f"refused:{error.facts['cap']}", run)
            return False
        self.tell("reserved", run, ceiling)
        return True

    def hold(self, until: int) -> None:
        """Reserve, and live on until the parent says so."""
        run, _ = self.ledger.create_run(f"{self.rng.getrandbits(64)}", {}, "d")
        with runner_lock(self.home.run_dir(run.run)):
            held = self.reserve(run.run, Usd("0.01"))
            self.tell("holding" if held else "round", run.run)
            os.read(until, 1)
            if held:
                self.ledger.settle(run.run)


class Storm:
    """The parent."""

    def __init__(self, home: Home, processes: int, rounds: int, seed: int) -> None:
        self.home, self.processes, self.rng = home, processes, random.Random(seed)
        # About a third of the processes can hold money at once, and what is charged leaves them less and less.
        day = Usd(processes) * Usd("0.2") + Usd(processes * rounds) * Usd("0.002")
        at_once = max(4, processes // 3)
        self.caps = Caps("team", Usd("1.8"), day, Usd(day * 2), concurrent_runs=at_once, time_zone="UTC")
        first = Ledger.open(home, Clock())
        self.batch, _ = first.create_batch("sweep", Usd(day) * Usd("0.3"), "typed", "d", "sweep.yaml")
        first._engine.dispose()  # no connection may cross a fork
        self.books = Books(home, self.caps, self.batch.batch, self.batch.amount_usd)
        self.ears, self.words = os.pipe()
        self.heard = os.fdopen(self.ears, "r", buffering=1)
        self.todo = dict.fromkeys(range(processes), rounds)
        self.pids: dict[int, int] = {}  # worker -> its process
        self.said: Counter[str] = Counter()
        self.promised: dict[str, set[str]] = {"reserved": set(), "charged": set(), "settled": set()}
        self.freed: set[str] = set()
        self.kills = self.samples = 0

    def start(self, number: int, act: str = "rounds", until: int = -1) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                batch = self.batch.batch if number % 4 == 0 and act == "rounds" else None
                seed = self.rng.getrandbits(60) ^ number
                worker = Worker(self.home, self.caps, batch, number, seed, self.words)
                worker.rounds(self.todo[number]) if act == "rounds" else worker.hold(until)
            except BaseException as error:  # noqa: BLE001  the parent must hear of it
                os.write(2, f"worker {number}: {error!r}\n".encode())
                os.write(self.words, f"{number} fault - 0\n".encode())
            finally:
                os._exit(0)
        self.rng.random()  # the next one's seed is another
        self.pids[number] = pid

    def hear(self) -> tuple[int, str, str]:
        number, word, run, amount = self.heard.readline().split()
        self.said[word] += 1
        assert word != "fault", "a worker failed: see above"
        if word in self.promised:
            self.promised[word].add(f"{run} {amount}" if word != "settled" else run)
        return int(number), word, run

    def rage(self) -> None:
        for number in self.todo:
            self.start(number)
        while self.pids:
            number, word, about = self.hear()
            if word == "round":
                self.todo[number] -= 1
            if word == "done" and about == str(self.pids.get(number)):  # not the last word of a killed one
                os.waitpid(self.pids.pop(number), 0)
            if self.rng.random() < 0.02 and self.pids:
                self.kill(self.rng.choice(sorted(self.pids)))
            if self.rng.random() < 0.01:
                self.freed |= self.reap_now()
            if self.rng.random() < 0.05:
                self.books.check()
                self.samples += 1

    def reap_now(self) -> set[str]:
        """The runs whose dead holders were found. Its clock is hours ahead: only a lock says who lives."""
        ledger = Ledger.open(self.home, Clock())
        done = reap(self.home, ledger, Clock(timedelta(hours=3)), most=1_000_000)
        assert not done.pending
        ledger._engine.dispose()
        return {fact["run"] for fact in (*done.freed, *done.released)}

    def kill(self, number: int) -> None:
        os.kill(self.pids[number], signal.SIGKILL)
        os.waitpid(self.pids.pop(number), 0)
        self.kills += 1
        if self.todo[number] > 0:
            self.start(number)

    def reap(self) -> dict[str, Any]:
        """Some hold money and live, some are dead: what reap frees must be exactly what the dead hold."""
        self.free_for_holders()
        reading, writing = os.pipe()
        keepers, told = range(1000, 1000 + max(4, self.processes // 4)), {}
        for number in keepers:
            self.start(number, "hold", reading)
        while len(told) < len(keepers):
            number, word, run = self.hear()
            if number in keepers and word in ("holding", "round"):  # not the last words of the killed
                told[number] = run
        for number in list(keepers)[::2]:
            self.kill_for_good(number)
        alive = {told[number] for number in self.pids}
        holding = self.books.holding()
        dead = holding - alive
        assert alive <= holding
        found = self.reap_now()
        assert self.books.holding() == alive, "reap frees what the dead hold, and only that"
        assert dead <= found
        assert not alive & found
        os.write(writing, b"." * len(self.pids))
        for number in list(self.pids):
            os.waitpid(self.pids.pop(number), 0)
        assert self.books.holding() == set(), "nothing is stuck"
        return {"held by the dead": len(dead), "held by the living": len(alive), "found": len(found)}

    def free_for_holders(self) -> None:
        """Room under the caps for those that will hold a cent each, whatever the dead of the storm still hold."""
        self.caps = Caps("team", Usd("1.8"), Usd(10_000), Usd(10_000), concurrent_runs=10_000, time_zone="UTC")
        self.books.limit(self.caps)

    def kill_for_good(self, number: int) -> None:
        os.kill(self.pids[number], signal.SIGKILL)
        os.waitpid(self.pids.pop(number), 0)


def main() -> None:
    home, processes, rounds, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    storm = Storm(Home(home), processes, rounds, seed)
    try:
        storm.rage()
        raged_s = time.monotonic() - BEGAN
        storm.books.check()
        storm.books.kept(storm.promised)
        peaks = replay(storm.books)
        left = storm.reap()
    finally:
        for pid in storm.pids.values():
            os.kill(pid, signal.SIGKILL)
    report = {
        "processes": processes, "rounds": rounds, "seed": seed, "kills": storm.kills, "seconds": round(raged_s, 1),
        "reaped on the way": len(storm.freed),
        "said": dict(sorted(storm.said.items())), "snapshots": storm.samples, **peaks, **left,
    }  # fmt: skip
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
