"""This machine as a host: a lease is a folder, and what it runs outlives the runner as on a rented box."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts.base import HostError, StepStatus
from recipes import supervise


class LocalHost:
    """A folder on this machine with detached, lock-guarded processes."""

    def __init__(self, root: Path, python: Path | Callable[[], Path], clock: Clock) -> None:
        """`python` may be found only when it is needed: ending a lease must not depend on it."""
        self.root, self._python, self._clock = root, python, clock

    @property
    def python(self) -> str:
        """The recipe environment's Python here."""
        return str(self._python if isinstance(self._python, Path) else self._python())

    def path(self, remote: str) -> str:
        """The absolute path of a path relative to the lease's folder."""
        return str(self.root / remote)

    @effect("host.put")
    def put(self, local: Path, remote: str) -> None:
        """Copy a file or folder in; symbolic links stay links, so audio that is here already is not copied."""
        target = self.root / remote
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        _remove(part)
        if local.is_dir():
            shutil.copytree(local, part, symlinks=True)
        else:
            shutil.copy2(local, part)
        _remove(target)
        part.replace(target)

    @effect("host.get")
    def get(self, remote: str, local: Path) -> None:
        """Bring a file home: a hard link where it can be one (no gigabytes copied), else a copy; atomic."""
        local.parent.mkdir(parents=True, exist_ok=True)
        part = local.with_name(f".{local.name}.part")
        part.unlink(missing_ok=True)
        source = self.root / remote
        try:
            os.link(source, part)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, part)
        part.replace(local)

    @effect("host.read")
    def read(self, remote: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """Bytes of a file from an offset; empty when there are none (yet)."""
        try:
            with (self.root / remote).open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:
            return b""

    @effect("host.start")
    def start(self, step: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a command in its own session; the step's lock keeps a second one from starting."""
        if self.status(step).state == "running":
            return
        step_dir = self._step_dir(step)
        step_dir.mkdir(parents=True, exist_ok=True)
        (step_dir / "exit.json").unlink(missing_ok=True)  # an earlier attempt's end is not this one's
        process = subprocess.Popen(
            [self.python, supervise.__file__, str(step_dir), "--", *argv],
            cwd=self.root, env={**inherited_environment(), **env}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        alive = step_dir / "alive.json"
        while process.poll() is None and (supervise.read_json(alive) or {}).get("pid") != process.pid:
            self._clock.sleep(0.01)  # until it can be asked after, and be sent a signal

    @effect("host.status")
    def status(self, step: str) -> StepStatus:
        """How a step does, asked of its lock."""
        state, code = supervise.status(self._step_dir(step))
        return StepStatus(state, code)  # type: ignore[arg-type]  # the supervisor's four words

    @effect("host.signal")
    def signal(self, step: str, signum: int) -> None:
        """Send a signal to a step's command, if it runs."""
        supervise.signal_step(self._step_dir(step), signum)

    @effect("host.steps")
    def running_steps(self) -> list[str]:
        """The steps that still hold their lock."""
        folder = self.root / "steps"
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        return [name for name in names if self.status(name).state == "running"]

    @effect("host.clear")
    def clear(self, steps: Sequence[str]) -> None:
        """Remove these steps, what they made and their specs."""
        if running := set(steps) & set(self.running_steps()):
            raise HostError(f"{', '.join(sorted(running))} still runs here")
        for path in (*map(self._step_dir, steps), self.root / "out", self.root / "specs"):
            _remove(path)

    @effect("host.wipe")
    def wipe(self) -> None:
        """Remove the lease's folder with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            shutil.rmtree(self.root)  # says why not

    def _step_dir(self, step: str) -> Path:
        return self.root / "steps" / step


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# What a recipe may see of the launcher's environment: never the whole of it, for it may hold keys.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
           "CUDA_HOME", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "NEMO_CACHE_DIR", "XDG_CACHE_HOME",
           "OMP_NUM_THREADS",
           "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")  # fmt: skip


def inherited_environment() -> dict[str, str]:
    """The part of this environment that a recipe may see (no keys)."""
    return {name: os.environ[name] for name in PASSED if name in os.environ}
