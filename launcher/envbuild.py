"""Builds the two Python environments from their locks: `make env` and `launcher doctor --fix`.

Standard library only. A build is resumable and says how far it is. Its stamp is written last and holds the
hash of what was asked for: the same lock is a no-op, a changed one is built again, a killed one goes on (pip
keeps what it had downloaded and installed; a package it was in the middle of writing is installed again).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from launcher.environment import STAMP, Environment, fingerprint_in, launcher_environment, recipe_environment
from launcher.errors import BadInputError

UNFINISHED, LOG = ".unfinished.json", "build.log"
GETTING = re.compile(r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?([\w.]+)-([^-\s]+)\S*")
FLAGS = ("--progress-bar", "raw", "--retries", "10", "--resume-retries", "10")  # pip 25.1 and newer
ELSEWHERE = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_ROOT", "PIP_NO_DEPS")


class BuildFailedError(BadInputError):
    """An environment could not be built; what pip said last is in the message, all of it in the log."""


class _Build:
    """One environment being built: a thread of its own runs it, `doing` says how far it is."""

    def __init__(self, environment: Environment, base_python: str) -> None:
        self.environment, self.base_python = environment, base_python
        self.doing = "starting"
        self.error: BadInputError | None = None
        self.child: subprocess.Popen[str] | None = None
        self.cancelled = False
        self.before = 0  # packages that were there before pip installed any
        self.thread = threading.Thread(target=self._guarded, name=environment.name, daemon=True)

    def _guarded(self) -> None:
        try:
            self._run()
        except BadInputError as error:
            self.error = error
        except OSError as error:
            root = self.environment.root
            self.error = BuildFailedError(f"{error}.", file=root, fix="Mend that, then: make env")

    def _run(self) -> None:
        env = self.environment
        _refuse_foreign(env.root)
        env.root.mkdir(parents=True, exist_ok=True)
        free_gb = shutil.disk_usage(env.root).free / 1e9
        if env.state in {"absent", "stale"} and free_gb < env.needs_gb:
            problem = f"{free_gb:.1f} GB are free here, the {env.name} environment needs {env.needs_gb:.1f}."
            raise BuildFailedError(problem, file=env.root, fix="Free some space, then: make env")
        with self._held() as held:
            if env.state == "ready":  # another build finished it while this one waited
                return
            self._make_venv(held)
            (env.root / STAMP).unlink(missing_ok=True)
            _write(env.root / UNFINISHED, {"fingerprint": env.fingerprint})
            sweep_torn(env.root)
            self._bring_pip(held)
            self._pip(held, "--constraint", str(env.lock), *env.requirements)
            version = ".".join(map(str, sys.version_info[:3]))
            _write(env.root / STAMP, {"fingerprint": env.fingerprint, "built_by_python": version})
            (env.root / UNFINISHED).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _held(self) -> Iterator[int]:
        """Hold the folder against a second build. pip inherits the lock: an orphaned pip still holds it."""
        fd = os.open(self.environment.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.doing = "waiting for another build of it"
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def _make_venv(self, held: int) -> None:
        env = self.environment
        other = fingerprint_in(env.root / STAMP) or fingerprint_in(env.root / UNFINISHED)
        stale = env.wipe_when_stale and other not in {None, env.fingerprint}
        runs = [str(env.python), "-m", "pip", "--version"]
        if not stale and env.python.exists() and self._call(held, runs) == 0:
            return
        self.doing = "creating it"
        if self._call(held, [self.base_python, "-c", "import ensurepip, venv"]) != 0:
            fix = "On Debian and Ubuntu: apt-get install python3-venv (as root), then: make env"
            raise BuildFailedError(f"{self.base_python} has no venv module (or no ensurepip).", fix=fix)
        for entry in env.root.iterdir():  # what `venv --clear` does, but the log stays
            if entry.name != LOG:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if self._call(held, [self.base_python, "-m", "venv", str(env.root)]) != 0:
            raise self._failed("the virtual environment could not be created")

    def _bring_pip(self, held: int) -> None:
        """Bring pip to the locked version: it is the first that resumes a broken download."""
        wanted = re.search(r"^pip==(\S+)", self.environment.lock.read_text(encoding="utf-8"), re.MULTILINE)
        assert wanted, f"{self.environment.lock} does not pin pip"
        has = f"import sys, pip; sys.exit(pip.__version__ != {wanted[1]!r})"
        if self._call(held, [str(self.environment.python), "-c", has]) != 0:
            self._pip(held, wanted[0], bar=False)

    def _pip(self, held: int, *arguments: str, bar: bool = True) -> None:
        command = [str(self.environment.python), "-m", "pip", "install"]
        command += ["--no-input", "--disable-pip-version-check"]
        if bar:
            command += FLAGS
        if self._call(held, [*command, *arguments], self._heard) != 0:
            raise self._failed("pip did not finish")

    def _heard(self, line: str) -> None:
        """Turn a line of pip's into what it is doing."""
        if match := re.match(r"Progress (\d+) of (\d+)", line):
            done, total = int(match[1]) / 1e6, int(match[2]) / 1e6
            if total >= 5:
                self.doing = re.sub(r" \(.*", "", self.doing) + f" ({done:.0f} of {total:.0f} MB)"
        elif match := GETTING.match(line):
            if ".metadata" not in line:
                self.doing = f"getting {match[1]} {match[2]}"
        elif match := re.match(r"Collecting ([\w.-]+)", line):
            self.doing = f"resolving {match[1]}"
        elif line.startswith("Installing collected packages:"):
            self.doing = f"installing 0 of {line.count(',') + 1} packages"
            self.before = self._installed()

    def look(self) -> str:
        """How far it is, now (pip says nothing while it installs: the packages on disk are counted)."""
        if match := re.fullmatch(r"installing \d+ of (\d+) packages", self.doing):
            here = min(max(0, self._installed() - self.before), int(match[1]))
            self.doing = f"installing {here} of {match[1]} packages"
        return self.doing

    def _installed(self) -> int:
        return sum(1 for _ in self.environment.root.glob("lib/python3*/site-packages/*.dist-info"))

    def _call(self, held: int, command: list[str], heard: Callable[[str], None] | None = None) -> int:
        """Run a command with its output in the log and, line by line, to `heard`; its exit status."""
        with (self.environment.root / LOG).open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            if self.cancelled:
                return -signal.SIGTERM
            self.child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                env=_clean_environ(), pass_fds=(held,), stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert self.child.stdout is not None
            for line in self.child.stdout:
                if not line.startswith("Progress "):
                    log.write(line)
                    log.flush()
                if heard:
                    heard(line)
            return self.child.wait()

    def _failed(self, what: str) -> BuildFailedError:
        log = self.environment.root / LOG
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        told = [line for line in lines[-60:] if line.startswith("ERROR")][-3:] or lines[-3:]
        again = "Then again: make env (it goes on from here)"
        return BuildFailedError(f"{what}: {' / '.join(told)}.", file=log, fix=again)

    def stop(self) -> None:
        """End its child process, and start no other."""
        self.cancelled = True
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()
            self.child.wait()


def build(
    environments: Sequence[Environment],
    *,
    base_python: str | None = None,
    show: Callable[[str], None] | None = None,
    live: bool = False,
) -> list[Environment]:
    """Build what is not ready, side by side; returns what was built ([]: nothing to do).

    `show` takes progress: with `live` one line, meant to overwrite the last, four times a second; without,
    a line when something changes, at most one every few seconds. Raises BuildFailedError (a BadInputError);
    KeyboardInterrupt passes through after the children have ended.
    """
    show = show or (lambda _text: None)
    base = base_python or getattr(sys, "_base_executable", None) or sys.executable
    builds = [_Build(environment, base) for environment in environments if environment.state != "ready"]
    for one in builds:
        one.thread.start()
    try:
        _watch(builds, show, live)
    except BaseException:
        for one in builds:
            one.stop()
        raise
    for one in builds:
        if one.error:
            raise one.error
    return [one.environment for one in builds]


def _watch(builds: Sequence[_Build], show: Callable[[str], None], live: bool) -> None:
    started = time.monotonic()
    told: dict[str, tuple[float, str]] = {}
    while alive := [one for one in builds if one.thread.is_alive()]:
        alive[0].thread.join(timeout=0.25)
        now = time.monotonic()
        spent = f"{int(now - started) // 60}:{int(now - started) % 60:02d}"
        if live:
            show(f"{spent}  " + " · ".join(f"{one.environment.name}: {one.look()}" for one in alive))
            continue
        for one in alive:
            at, text = told.get(one.environment.name, (-60.0, ""))
            if now - at >= 5 and one.look() != text:
                told[one.environment.name] = (now, one.doing)
                show(f"{spent}  {one.environment.name}: {one.doing}")


def sweep_torn(root: Path) -> list[str]:
    """Take out what a killed pip left half-written; returns the names.

    pip writes a package's files and METADATA first and INSTALLER at the end: between the two, a later pip
    believes the package whole and skips it. Folders named ~x are what it was replacing.
    """
    torn = []
    for site in root.glob("lib/python3*/site-packages"):
        half = [info for info in site.glob("*.dist-info") if not (info / "INSTALLER").is_file()]
        for folder in [*half, *site.glob("~*")]:
            torn.append(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
    return torn


def _refuse_foreign(root: Path) -> None:
    """Never build into, or clear, a folder that is not a virtual environment of ours or about to be one."""
    if root.is_dir() and any(root.iterdir()):
        ours = any((root / name).exists() for name in ("pyvenv.cfg", LOG, STAMP, UNFINISHED))
        if not ours:
            problem = "is in the way: not empty, and not a virtual environment."
            raise BuildFailedError(problem, file=root, fix="Move it away.")


def _clean_environ() -> dict[str, str]:
    """The environment for pip: what would send packages elsewhere, or show it others, is taken out."""
    kept = {key: value for key, value in os.environ.items() if key not in {*ELSEWHERE, "PIP_QUIET"}}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _write(path: Path, payload: dict[str, str]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(payload) + "\n", encoding="utf-8")
    part.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m launcher.envbuild [launcher] [recipes]`: what `make env` runs; both by default."""
    known = {"launcher": launcher_environment, "recipes": recipe_environment}
    names = list(sys.argv[1:] if argv is None else argv) or list(known)
    if unknown := [name for name in names if name not in known]:
        sys.stderr.write(f"no such environment: {', '.join(unknown)} (there are {', '.join(known)})\n")
        return 2

    def on_term(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_term)
    live = sys.stderr.isatty()
    columns = shutil.get_terminal_size().columns - 1

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text[:columns]}" if live else f"{text}\n")
        sys.stderr.flush()

    started = time.monotonic()
    try:
        environments = [known[name]() for name in names]
        built = build(environments, show=show, live=live)
    except BadInputError as error:
        sys.stderr.write(f"{chr(10) if live else ''}error: {error}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; `make env` goes on from here\n")
        return 130
    if built:
        places = ", ".join(environment.root.name for environment in built)
        show(f"built {places} in {time.monotonic() - started:.0f} s")
        sys.stderr.write("\n" if live else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
