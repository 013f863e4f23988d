"""`launcher reap` on a timer of this user: systemd, launchd or cron. No key and no password is written anywhere.

What is written holds the interpreter, the launcher's own folder and the home; a timer sees neither the keys nor the
ledger's address of the shell it was installed from, so it reads them from HOME/reap.env (mode 0600), where needed.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import BadInputError, StateError
from launcher.home import Home

NAME = "parakeet-launcher-reap"
_SOURCE = Path(__file__).resolve().parents[2]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Timer:
    """What installing a timer writes and calls. `crontab` is the lines of one, which have no file of their own."""

    kind: str
    files: dict[Path, str]
    load: tuple[tuple[str, ...], ...]
    unload: tuple[tuple[str, ...], ...]
    crontab: str = ""
    hint: str = ""

    def install(self, say: Say, *, dry_run: bool = False) -> dict[str, Any]:
        """Show and write it, and have it run from now on; installing again replaces it. Raises StateError."""
        for path, text in self.files.items():
            say(f"{'would write' if dry_run else 'writes'} {path}:\n{text}")
            if not dry_run:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        if self.crontab:
            say(f"{'would add' if dry_run else 'adds'} to this user's crontab:\n{self.crontab}")
            if not dry_run:
                _write_crontab(_without(_read_crontab()) + self.crontab)
        for command in self.load:
            say(f"{'would run' if dry_run else 'runs'}: {shlex.join(command)}")
            if not dry_run:
                _call(command)
        if self.hint:
            say(self.hint)
        return self._told(installed=not dry_run)

    def uninstall(self, say: Say, *, dry_run: bool = False) -> dict[str, Any]:
        """Stop it and remove what was written; nothing to remove is no fault."""
        there = [path for path in self.files if path.exists()]
        for command in self.unload if there else ():
            say(f"{'would run' if dry_run else 'runs'}: {shlex.join(command)}")
            if not dry_run:
                subprocess.run(command, capture_output=True, check=False)
        for path in there:
            say(f"{'would remove' if dry_run else 'removes'} {path}")
            if not dry_run:
                path.unlink()
        if self.crontab:
            held = _read_crontab()
            if _without(held) != held:
                say(f"{'would take' if dry_run else 'takes'} its lines out of this user's crontab")
                if not dry_run:
                    _write_crontab(_without(held))
        return self._told(installed=False)

    def _told(self, *, installed: bool) -> dict[str, Any]:
        return {"timer": self.kind, "installed": installed, "files": [str(path) for path in self.files]}


def plan_timer(home: Home, kind: str | None = None, minutes: int = 15) -> Timer:
    """The timer that this system has, or the one that is named. Raises BadInputError where there is none."""
    kind = kind or _kind_here()
    argv = (sys.executable, "-m", "launcher", "--home", str(home.root), "reap", "--quiet",
            "--env-file", str(home.root / "reap.env"))  # fmt: skip
    hint = f"Keys or a ledger that only your shell knows: put NAME=VALUE lines into {home.root / 'reap.env'}, and " \
           f"chmod 600 it. (Seen here: {_only_here() or 'none'}.)"  # fmt: skip
    if kind == "systemd":
        return _systemd(argv, minutes, hint)
    if kind == "launchd":
        return _launchd(argv, minutes, hint)
    return _cron(argv, minutes, hint)


def _systemd(argv: Sequence[str], minutes: int, hint: str) -> Timer:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    service = f"""[Unit]
Description=parakeet-launcher: release rented machines that should be gone

[Service]
Type=oneshot
Environment={_unit_word(f"PYTHONPATH={_SOURCE}")}
ExecStart={" ".join(_unit_word(word) for word in argv)}
TimeoutStartSec=1h
"""
    timer = f"""[Unit]
Description=parakeet-launcher: reap every {minutes} minutes

[Timer]
OnCalendar=*:0/{minutes}
RandomizedDelaySec=30
Persistent=true

[Install]
WantedBy=timers.target
"""
    control = ("systemctl", "--user")
    return Timer(
        "systemd", {config / f"{NAME}.service": service, config / f"{NAME}.timer": timer},
        ((*control, "daemon-reload"), (*control, "enable", "--now", f"{NAME}.timer")),
        ((*control, "disable", "--now", f"{NAME}.timer"),),
        hint=f"{hint}\nIt runs while you are logged in; also without: loginctl enable-linger",
    )  # fmt: skip


def _launchd(argv: Sequence[str], minutes: int, hint: str) -> Timer:
    label = f"dev.{NAME}"
    path = Path.home() / "Library" / "LaunchAgents" / f"{label}.plist"
    text = plistlib.dumps({
        "Label": label, "ProgramArguments": list(argv), "StartInterval": minutes * 60, "RunAtLoad": True,
        "EnvironmentVariables": {"PYTHONPATH": str(_SOURCE)}, "ProcessType": "Background",
    }).decode()  # fmt: skip
    domain = f"gui/{os.getuid()}"
    unload = ("launchctl", "bootout", f"{domain}/{label}")
    return Timer("launchd", {path: text}, (("launchctl", "bootstrap", domain, str(path)),), (unload,), hint=hint)


def _cron(argv: Sequence[str], minutes: int, hint: str) -> Timer:
    command = f"PYTHONPATH={shlex.quote(str(_SOURCE))} {shlex.join(argv)}"
    if "\n" in command:
        raise BadInputError("a crontab has no lines for a path like this.", value=command, fix="Use another home.")
    escaped = command.replace("%", "\\%")  # crontab(5): a bare % ends the command
    return Timer("cron", {}, (), (), crontab=f"*/{minutes} * * * * {escaped} # {NAME}\n", hint=hint)


def _kind_here() -> str:
    if sys.platform == "darwin":
        return "launchd"
    if shutil.which("systemctl"):
        asked = subprocess.run(["systemctl", "--user", "show-environment"], capture_output=True, check=False)
        if asked.returncode == 0:
            return "systemd"
    if shutil.which("crontab"):
        return "cron"
    raise BadInputError(
        "this system runs neither systemd for its users nor launchd nor cron.", key="--install",
        fix="Run launcher reap from whatever runs things here by the clock; --timer cron --dry-run shows the line.",
    )  # fmt: skip


def _only_here() -> str:
    """The names of settings that this shell has and a timer will not."""
    names = ("RUNPOD_API_KEY", "VAST_API_KEY", "LAUNCHER_LEDGER", "LAUNCHER_NOTIFY")
    return ", ".join(name for name in names if os.environ.get(name))


def _unit_word(word: str) -> str:
    """A word of a unit file, whatever is in it (systemd.syntax: quoting; systemd.service: $; systemd.unit: %)."""
    for sign, instead in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$"), ("\n", "\\n")):
        word = word.replace(sign, instead)
    return f'"{word}"'


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise StateError(f"{shlex.join(command)} failed: {said}", fix="What was written stays; run it by hand.")


def _read_crontab() -> str:
    done = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)  # without one it says no
    return done.stdout if done.returncode == 0 else ""


def _write_crontab(text: str) -> None:
    done = subprocess.run(["crontab", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StateError(f"crontab did not take it: {done.stderr.strip()}", fix="Add the line by hand.")


def _without(crontab: str) -> str:
    return "".join(line for line in crontab.splitlines(keepends=True) if not line.rstrip().endswith(f"# {NAME}"))
