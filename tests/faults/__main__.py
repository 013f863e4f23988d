"""`make faults`, or `python -m tests.faults`: plays the cases, and keeps what each came to.

CASES="runpod resume 0:40" plays a part: a provider (runpod, vast, brev; skypilot: RunPod through SkyPilot), a rescue
(resume, sentinel, reaper, watchdog; runner: it lives, and its sentinel dies; again: `launcher run` dies, and is run
again), a slice of the list; any of them, in any order. The list is shuffled, always alike, so that its beginning
is a fair part of the whole. Results are added to bench/results/faults.jsonl (the newest of a case counts), and the
table beside it is written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.faults.bystanders import launch
from tests.faults.cases import (
    RESCUES,
    Case,
    cases,
    of_the_launcher,
    of_the_sentinel,
    passed,
    recipe_of,
    through_skypilot,
)
from tests.faults.field import REPO, SKYPILOT, Field
from tests.faults.play import Result, play
from tests.faults.table import write_table

RESULTS = REPO / "bench" / "results" / "faults.jsonl"
PROVIDERS = ("runpod", "vast", "brev", SKYPILOT)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="provider, rescue, A:B")
    parser.add_argument("--jobs", type=int, default=max(2, 2 * (os.cpu_count() or 1)), help="cases at once")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="name the cases and leave")
    parser.add_argument("--grep", default="", help="only cases whose name has this in it")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so long")
    parser.add_argument("--missing", action="store_true", help="only those without a result yet")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("A simulated machine is made of namespaces, which needs root. Fix: run as root.\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # begin no more, and leave nothing standing
    with tempfile.TemporaryDirectory(prefix="launcher-faults-", ignore_cleanup_errors=True) as folder:
        skypilot = SKYPILOT in asked.words or not set(PROVIDERS) & set(asked.words)
        ground = Field(Path(folder), skypilot=skypilot and not asked.list)
        try:
            chosen = _chosen(ground, asked.words)
            chosen = [case for case in chosen if asked.grep in case.key]
            if asked.missing and asked.results.exists():
                held = {json.loads(line)["case"] for line in asked.results.read_text(encoding="utf-8").splitlines()}
                chosen = [case for case in chosen if case.key not in held]
            if asked.list:
                say("\n".join(case.key for case in chosen))
                return 0
            bad = _play_all(ground, chosen, asked.jobs, asked.results, asked.minutes)
        finally:
            ground.close()
    write_table(asked.results)
    return 1 if bad else 0


def _chosen(ground: Field, words: Iterable[str]) -> list[Case]:
    """The cases that the words leave: nothing named is everything."""
    words = list(words)
    rescues = tuple(word for word in RESCUES if word in words) or RESCUES
    named = [word for word in words if word in PROVIDERS] or list(PROVIDERS)
    direct = [name for name in named if name != SKYPILOT]
    kinds = sorted({(provider, recipe_of(provider, rescue)) for provider in direct for rescue in rescues
                    if rescue not in ("runner", "again")})  # fmt: skip
    launched = direct if "again" in rescues else []
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        at_work = list(pool.map(lambda kind: _trace(ground, *kind), kinds))
        at_terminal = list(pool.map(lambda provider: _trace_launch(ground, provider), launched))
    found: list[Case] = []
    for kind, counts in zip(kinds, at_work, strict=True):
        found += cases(*kind, counts, rescues)
    for provider, counts in zip(launched, at_terminal, strict=True):
        found += of_the_launcher(provider, counts)
    for provider in direct:
        found += [case for case in of_the_sentinel(provider) if case.rescue in rescues]
    found += [case for case in through_skypilot() if SKYPILOT in named and case.rescue in rescues]
    random.Random(0).shuffle(found)
    part = next((word for word in words if ":" in word), None)
    if part:
        first, _, last = part.partition(":")
        found = found[int(first or 0) : int(last) if last else None]
    return found


def _trace(ground: Field, provider: str, recipe: str) -> Counter[str]:
    """One whole run, and every failpoint that it passed."""
    copy, log = ground.copy(provider, recipe), ground.folder / f"{provider}-{recipe}.log"
    _, said = copy.program("launcher.runner", str(copy.root), copy.run, LAUNCHER_FAILPOINT_LOG=str(log)).communicate()
    assert not copy.alive() and str(copy.ledger.run(copy.run).state) == "settled", said
    ground.leave(copy)
    return passed(log)


def _trace_launch(ground: Field, provider: str) -> Counter[str]:
    """One whole `launcher run`, and every failpoint that it passed itself."""
    copy, log = ground.empty(provider), ground.folder / f"{provider}-launcher.log"
    program = launch(copy, ground.job(provider, "evaluate"), LAUNCHER_FAILPOINT_LOG=str(log))
    _, said = program.communicate()
    assert not copy.alive() and program.returncode == 0, said
    ground.leave(copy)
    return passed(log, "launcher")


def _play_all(ground: Field, chosen: list[Case], jobs: int, results: Path, minutes: float) -> int:
    results.parent.mkdir(parents=True, exist_ok=True)
    bad, ends = 0, time.monotonic() + 60 * minutes

    def in_time(case: Case) -> Result | None:
        return play(ground, case) if time.monotonic() < ends else None

    with ThreadPoolExecutor(jobs) as pool, results.open("a", encoding="utf-8") as file:
        waiting = {pool.submit(in_time, case): case for case in chosen}
        for number, done in enumerate(_as_they_end(waiting), 1):
            try:
                result = done.result()
            except Exception as error:  # noqa: BLE001  a case that cannot be judged is a fault, not the end of all
                words = f"could not be judged: {type(error).__name__}: {error}"
                result = Result(waiting[done], reached=False, faults=[words])
            if result is None:
                continue
            file.write(json.dumps(result.told()) + "\n")
            file.flush()
            bad += bool(result.faults)
            how = "; ".join(result.faults) or (f"by {result.rescued_by}" if result.reached else "not reached")
            say(f"{number}/{len(chosen)} {result.case.key}: {how} ({result.seconds:.0f} s)")
    return bad


def _as_they_end(waiting: dict[Future[Result | None], Case]) -> Iterator[Future[Result | None]]:
    """As `as_completed`; stopped by a signal, those that have begun are still waited for."""
    told = set[Future[Result | None]]()
    try:
        for future in as_completed(waiting):
            told.add(future)
            yield future
    except KeyboardInterrupt:
        for future in waiting:
            future.cancel()
        yield from as_completed([future for future in waiting if future not in told and not future.cancelled()])


if __name__ == "__main__":
    sys.exit(main())
