"""What a step has done comes home while it goes on: a machine that is lost takes the work since then, not all.

Of a training that is its newest checkpoint; of a labelling, whose clips stand alone, the journal it goes on from.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts.base import Host
from launcher.money import ZERO
from launcher.runner.boarding import Aboard
from launcher.runner.mirror import Mirror
from launcher.runner.staging import is_rented
from launcher.runner.steps import LABELS
from recipes.contract import sha256_of
from recipes.finetune.checkpoints import SIDECAR, STATE
from recipes.pseudo_label.journal import JOURNAL

KEPT = "kept"  # of a run's folder: the newest checkpoint of each step that came home, or its journal
LONGEST_S = 600.0  # one transfer; what is not here by then is not waited for
RARELY = 4  # at most one part in so many of the time is spent on it
EVERY_S = 5.0  # a journal is looked at no more often
MONEY = 2  # at most one part in so many of what another attempt would cost goes into its traffic


class Keeping:
    """Of one machine. Called between two looks at a step; what it does, a stop request cuts short."""

    def __init__(self, aboard: Aboard, run_dir: Path, mirror: Mirror, clock: Clock) -> None:
        self._host, self._mirror, self._clock = aboard.host, mirror, clock
        self._dir = run_dir / KEPT
        self._usd_per_gb = aboard.candidate.offer.usd_per_gb_up
        self._most_usd = aboard.candidate.ceiling.retry_usd / MONEY
        self._spent_usd, self._not_before, self._last = ZERO, 0.0, ""

    def look(self, step: str, out: str) -> None:
        """Bring home what is new, where that is worth its time and traffic."""
        if self._clock.monotonic() < self._not_before or not is_rented(self._host):
            return
        if step == LABELS:
            self._timed(lambda: self._follow(step, f"{out}/{JOURNAL}"))
            self._not_before += EVERY_S
            return
        event = self._mirror.checkpoint(step)
        name = str(event.get("name")) if event else ""
        if not event or name == self._last:
            return
        self._last = name
        price = self._usd_per_gb * int(event.get("bytes") or 0) / 10**9
        if not name.startswith("step-") or "/" in name or self._spent_usd + price > self._most_usd > ZERO:
            return
        self._spent_usd += price
        if self._timed(lambda: self._fetch(step, f"{out}/checkpoints/{name}", name)):
            self._mirror.say("kept", checkpoint=name)

    def _timed(self, bring: Callable[[], None]) -> bool:
        """Whether it came whole; how long it took says when the next may."""
        began = self._clock.monotonic()
        try:
            with _within(LONGEST_S):
                bring()
            return True
        except (FileNotFoundError, TimeoutError, ValueError):
            return False  # pruned meanwhile, too slow, or damaged: the next one
        finally:
            took_s = self._clock.monotonic() - began
            self._not_before = self._clock.monotonic() + took_s * (RARELY - 1)

    @effect("checkpoint.keep")
    def _follow(self, step: str, there: str) -> None:
        """A journal is only ever added to, and whoever reads it passes over a line that is torn."""
        here = self._dir / step / JOURNAL
        here.parent.mkdir(parents=True, exist_ok=True)
        with here.open("ab") as file:
            while chunk := self._host.read(there, file.tell()):
                file.write(chunk)

    @effect("checkpoint.keep")
    def _fetch(self, step: str, there: str, name: str) -> None:
        part = self._dir / f".part-{step}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in (SIDECAR, STATE):
            self._host.get(f"{there}/{file}", part / file)
        told: dict[str, Any] = json.loads((part / SIDECAR).read_text(encoding="utf-8"))
        if sha256_of(part / STATE) != told.get("sha256"):
            raise ValueError(f"{name} came home damaged")
        (self._dir / step).mkdir(exist_ok=True)
        final = self._dir / step / name
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        for old in (self._dir / step).iterdir():
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)


@effect("checkpoint.send")
def send_kept(host: Host, run_dir: Path, step: str, out: str) -> str | None:
    """Send a machine that has not begun a step what is kept here of it; its name, where there is any."""
    with suppress(FileNotFoundError):
        for kept in sorted((run_dir / KEPT / step).iterdir(), reverse=True):
            host.put(kept, f"{out}/{JOURNAL}" if kept.name == JOURNAL else f"{out}/checkpoints/{kept.name}")
            return kept.name
    return None


@effect("checkpoint.forget")
def forget_kept(run_dir: Path) -> None:
    """A run that has ended keeps its model, not what it was made from."""
    shutil.rmtree(run_dir / KEPT, ignore_errors=True)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError wherever the work is, after so long. In the main thread."""

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
