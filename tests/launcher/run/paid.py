"""A ground where runs cost money: the stand-in recipe, offers of the scripted provider, budgets, and its bill."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fast import FastGround
from jobs import REPO, Launcher

from launcher.home import Home
from launcher.ledger import Ledger
from launcher.money import Usd
from tests.patience import be_late

SCRIPTED = REPO / "tests" / "launcher" / "scripted"
sys.path.insert(0, str(SCRIPTED))
from scripted_provider import billed, read_bill  # noqa: E402  the provider's own books

ENDLESS = 1000.0  # seconds of a job that no test waits for

BUDGETS = """default: interactive
time_zone: Europe/Zurich
budgets:
  interactive: {{{caps}, providers: [local, scripted], approval: [typed, preapproved]}}
  typed: {{{caps}, providers: [scripted], approval: [typed]}}
  preapproved: {{{caps}, providers: [scripted], approval: [preapproved]}}
  empty: {{per_run_usd: 0, per_day_usd: 0, per_month_usd: 0, max_usd_per_hour: 9, providers: [scripted],
           approval: [typed, preapproved]}}
"""
CAPS = "per_run_usd: 5, per_day_usd: 10, per_month_usd: 50, max_usd_per_hour: 2.5, concurrent_runs: 4"


def offer(offer_id: str = "s1", usd_per_hour: str = "0.41", gpu: str = "RTX 4090", **more: Any) -> dict[str, Any]:
    """One offer of the scripted provider, as an offers file has it."""
    return {"provider": "scripted", "offer_id": offer_id, "gpu": gpu, "count": 1, "vram_gb": 24, "trust": "secure",
            "usd_per_hour": usd_per_hour, "inet_down_mbps": 900, "inet_up_mbps": 900, **more}  # fmt: skip


@dataclass
class PaidGround:
    """Where the files of a run that costs money are."""

    fast: FastGround
    launcher: Launcher
    budgets: str = field(default=BUDGETS.format(caps=CAPS))

    def __post_init__(self) -> None:
        (self.fast.folder / "budgets.yaml").write_text(self.budgets, encoding="utf-8")
        self.offer(offer())
        self.script()

    @property
    def offers_file(self) -> Path:
        return self.fast.folder / "offers.json"

    @property
    def bill_file(self) -> Path:
        return self.fast.folder / "script.json.bill.jsonl"

    @property
    def env(self) -> dict[str, str]:
        """What every process of it needs."""
        return {
            "PYTHONPATH": f"{REPO}{os.pathsep}{SCRIPTED}", "LAUNCHER_SCRIPT": str(self.fast.folder / "script.json"),
            "LAUNCHER_RECIPE_PYTHON": str(self.fast.python), "CI": "",
        }  # fmt: skip

    def offer(self, *offers: dict[str, Any]) -> None:
        """Write the market, at once and whole."""
        part = self.offers_file.with_suffix(".part")
        part.write_text(json.dumps(list(offers)), encoding="utf-8")
        part.replace(self.offers_file)

    def script(self, **script: Any) -> None:
        (self.fast.folder / "script.json").write_text(json.dumps(script), encoding="utf-8")

    def job(self, name: str = "job.yaml", steps: int = 3, budget: str = "interactive", text: str = "",
            **nature: Any) -> Path:  # fmt: skip
        """A job that only the scripted provider may run."""
        resources = "resources: {providers: [scripted]}\n" if "resources" not in text else ""
        return self.fast.job(steps=steps, name=name, text=f"budget: {budget}\n{resources}{text}", **nature)

    def held_job(self, after: int, **job: Any) -> Path:
        """A job whose training stands still after so many steps, until `let_go`."""
        (held := self.fast.folder / "held").touch()
        return self.job(held=[after, str(held)], **job)

    def let_go(self) -> None:
        """Let the held job train on."""
        (self.fast.folder / "held").unlink(missing_ok=True)

    def run(self, *args: object, **env: str) -> tuple[int, dict[str, Any], str]:
        """A verb without a terminal, its input closed: (exit code, its JSON object, stderr)."""
        process = self.launcher.start(*args, "--json", **{**self.env, **env})
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        assert len(out.splitlines()) == 1, f"stdout must be one object:\n{out}\n{err}"
        return process.returncode, json.loads(out), err

    def billed(self) -> Usd:
        """What the provider charges for everything so far."""
        return billed(self.bill_file)

    def bill(self) -> list[dict[str, Any]]:
        return read_bill(self.bill_file)

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(Home(self.launcher.home))

    def assert_nothing_happened(self) -> None:
        """No run, no reservation, no lease, nothing at the provider."""
        if (self.launcher.home / "ledger.sqlite").exists():
            ledger = self.ledger
            assert ledger.runs() == []
            assert ledger.leases() == []
        assert self.bill() == []


class Terminal:
    """A command at a real pseudo-terminal, as a person has it before them."""

    def __init__(self, ground: PaidGround, *args: object, columns: int = 100, before: str = "") -> None:
        self.shown = ""
        self._master, slave = pty.openpty()
        subprocess.run(["stty", "rows", "50", "cols", str(columns)], stdin=slave, check=True)
        code = f"import sys; {before}; from launcher.__main__ import main; sys.exit(main())"
        command = ["-c", code] if before else ["-m", "launcher"]
        # setsid -c: the terminal is the command's own, so that Ctrl-C in it is a signal.
        argv = ["setsid", "-c", sys.executable, *command, "--home", ground.launcher.home, *args]
        self.process = subprocess.Popen(
            [str(part) for part in argv], stdin=slave, stdout=slave, stderr=slave, close_fds=True,
            cwd=ground.fast.folder,
            env={**os.environ, **ground.env, "TERM": "xterm", "COLUMNS": str(columns)},
        )  # fmt: skip
        os.close(slave)

    def wait_for(self, text: str, times: int = 1, timeout_s: float = 120.0) -> str:
        """Read until the text is shown (so many times); fails with all that was when it never is."""
        while self.shown.count(text) < times:
            assert self._read(timeout_s), f"{text!r} never came:\n{self.shown}"
        be_late()
        return self.shown

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self, timeout_s: float = 120.0) -> int:
        """Read to the end; the exit code."""
        while self._read(timeout_s):
            pass
        code = self.process.wait(timeout_s)
        os.close(self._master)
        return code

    def hang_up(self) -> int:
        """Close the terminal under it; the exit code (negative: the signal that ended it)."""
        os.close(self._master)
        return self.process.wait(120)

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return False
        try:
            more = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += more.decode("utf-8", "replace")
        return bool(more)

