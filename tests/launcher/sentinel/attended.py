"""Who sees to a run: its runner and its sentinel, found by their own notes, killed to order."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.patience import until


@dataclass(frozen=True)
class Attended:
    """The runs of one launcher's home."""

    home: Path

    def dir(self, run: str) -> Path:
        return self.home / "runs" / run

    def only(self) -> str:
        """The one run that there is, once it has a runner."""
        return str(until(lambda: next((each.parent.name for each in self.home.glob("runs/*/runner.json")), None)))

    def runner(self, run: str, but: int = 0) -> int:
        """The process of the run's runner, another one than `but`."""
        return self._pid(run, "runner.json", but)

    def runner_noted(self, run: str) -> int:
        """The process of the last runner that the run had, alive or not."""
        return int(json.loads((self.dir(run) / "runner.json").read_text())["pid"])

    def sentinel(self, run: str, but: int = 0) -> int:
        return self._pid(run, "sentinel.json", but)

    def _pid(self, run: str, note: str, but: int) -> int:
        def found() -> int:
            with suppress(OSError, ValueError):
                pid = int(json.loads((self.dir(run) / note).read_text())["pid"])
                return pid if pid != but and psutil.pid_exists(pid) else 0
            return 0

        return int(until(found))

    def far(self, run: str, step: int, within_s: float = 120) -> None:
        """Wait until the fine-tune has come so far."""
        file = self.dir(run) / "events.jsonl"

        def come() -> bool:
            rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            return any(int(row.get("at_step") or 0) >= step for row in rows)

        until(come, within_s)

    def kill(self, *pids: int) -> None:
        """All at once: none of them lives to see the end of another."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(_is_alive, pids)))

    def gone(self) -> None:
        """Wait until neither runner nor sentinel is left; the sentinel looks twice a second."""
        until(lambda: self.processes() == [], 60)

    def processes(self) -> list[str]:
        """The runners, sentinels and rescues of this home, but zombies."""
        return [" ".join(each.info["cmdline"]) for each in self._processes()]

    def _processes(self) -> list[psutil.Process]:
        found = []
        for each in psutil.process_iter(["cmdline", "status"]):
            line = each.info["cmdline"] or []
            ours = str(self.home) in line and any(part.startswith("launcher.") for part in line)
            if ours and each.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(each)
        return found

    def end(self) -> None:
        """Kill what a failed test left."""
        for each in self._processes():
            with suppress(psutil.Error):
                each.kill()


def _is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
