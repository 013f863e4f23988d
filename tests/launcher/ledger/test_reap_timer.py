"""The reaper on a timer: what is written really runs, replaces itself, goes away again, and holds no secret."""

from __future__ import annotations

import configparser
import json
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.home import Home
from launcher.reaper.timer import NAME, plan_timer

REPO = Path(__file__).resolve().parents[3]
# Stands in for cron's own program, which reads and keeps a user's lines: `crontab -l`, `crontab -`.
CRONTAB = """#!/bin/sh
case "$1" in -l) cat "$TABLE" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; };; -) cat > "$TABLE";; esac
"""
SECRETS = {"RUNPOD_API_KEY": "rp-planted-key", "LAUNCHER_LEDGER": "postgresql://u:planted-password@h/d",
           "LAUNCHER_NOTIFY": "json://planted-token@h"}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with everything in its path that a unit, a crontab or a shell could stumble over."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return Home(tmp_path / 'ho me 100% "$HOME" \'of\'').ensure()


def reaps(argv: list[str], home: Home, pythonpath: str) -> None:
    """The command as a timer starts it: in an environment without anything of ours."""
    env = {"PATH": os.defpath, "PYTHONPATH": pythonpath, "HOME": str(home.root)}
    done = subprocess.run([*argv, "--json"], capture_output=True, text=True, env=env, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pending"] == []
    assert (home.root / "ledger.sqlite").exists()  # this home, whatever its name


def told(timer: object) -> str:
    said: list[str] = []
    timer.install(said.append, dry_run=True)  # type: ignore[attr-defined]
    return "\n".join(said)


@pytest.mark.parametrize("kind", ["systemd", "launchd", "cron"])
def test_a_dry_run_shows_all_writes_nothing_and_tells_no_secret(home: Home, kind: str) -> None:
    shown = told(plan_timer(home, kind))
    assert "reap" in shown
    assert "RUNPOD_API_KEY" in shown  # by name: a timer will not have it
    assert not [secret for secret in SECRETS.values() if secret in shown]
    assert "planted" not in shown
    assert not [path for path in plan_timer(home, kind).files if path.exists()]


def test_systemd_accepts_the_units_and_what_they_start_reaps(home: Home, tmp_path: Path) -> None:
    planned = plan_timer(home, "systemd", minutes=5)
    for path, text in planned.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    if shutil.which("systemd-analyze"):  # elsewhere what they start is all that can be tried
        argv = ["systemd-analyze", "--user", "verify", *map(str, planned.files)]
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        assert not [line for line in done.stderr.splitlines() if NAME in line], done.stderr
        subprocess.run(["systemd-analyze", "calendar", "*:0/5"], capture_output=True, check=True)
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(planned.files[next(path for path in planned.files if path.suffix == ".service")])
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(unit["Service"]["ExecStart"])]
    (setting,) = shlex.split(unit["Service"]["Environment"])
    assert words[words.index("--home") + 1] == str(home.root)
    reaps(words, home, setting.replace("%%", "%").removeprefix("PYTHONPATH="))
    assert "OnCalendar=*:0/5" in "".join(planned.files.values())


def test_launchd_is_given_a_plist_whose_program_reaps(home: Home) -> None:
    planned = plan_timer(home, "launchd", minutes=30)
    ((path, text),) = planned.files.items()
    held = plistlib.loads(text.encode())
    assert (path.stem, held["StartInterval"]) == (held["Label"], 1800)
    reaps(held["ProgramArguments"], home, held["EnvironmentVariables"]["PYTHONPATH"])


def test_cron_keeps_one_line_of_ours_beside_a_users_own_and_it_reaps(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    own = "MAILTO=me\n0 3 * * * backup # reap the leaves\n"
    (tmp_path / "table").write_text(own)
    for minutes in (20, 10):
        plan_timer(home, "cron", minutes).install(lambda _: None)
    *rest, line = (tmp_path / "table").read_text().splitlines(keepends=True)
    assert "".join(rest) == own
    minute, hour, day, month, weekday, command = line.split(maxsplit=5)
    assert (minute, {hour, day, month, weekday}) == ("*/10", {"*"})
    assert "%" not in command.replace("\\%", "")  # crontab(5): it would end the command
    shell = command.replace("\\%", "%").removesuffix(f" # {NAME}\n")
    done = subprocess.run(["/bin/sh", "-c", f"{shell} --json"], capture_output=True, text=True, cwd="/",
                          env={"PATH": os.defpath, "HOME": str(home.root)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exit"] == 0
    for _ in range(2):
        plan_timer(home, "cron").uninstall(lambda _: None)
        assert (tmp_path / "table").read_text() == own


def test_the_verb_installs_and_uninstalls_and_says_what_it_could_not_start(home: Home, tmp_path: Path) -> None:
    """Without a session of systemd's the files are written, and the verb says which command failed."""
    argv = [sys.executable, "-m", "launcher", "--home", str(home.root), "reap", "--timer", "systemd"]
    env = {**os.environ, "PYTHONPATH": str(REPO), "XDG_RUNTIME_DIR": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": ""}

    def verb(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*argv, *more], capture_output=True, text=True, env=env, cwd="/", check=False)

    unit = tmp_path / "config" / "systemd" / "user" / f"{NAME}.service"
    done = verb("--install")
    assert done.returncode == 2, done.stderr
    assert "daemon-reload failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert unit.exists()
    gone = verb("--uninstall", "--json")
    assert json.loads(gone.stdout)["installed"] is False, gone.stderr
    assert not unit.exists()
