"""One machine: namespaces of its own with a real sshd, hung on this cloud's bridge; all of it ends with process 1."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INSIDE = Path(__file__).with_name("inside.sh")
MARK = "LAUNCHER_SIMULATED_CLOUD"  # in the environment of every process that a cloud starts: whose it is
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineError(RuntimeError):
    """A machine that could not be made: the command, and what it said."""


def call(*command: str | Path, check: bool = True) -> str:
    """Run a command of this system; its output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise MachineError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class Network:
    """The bridge of one cloud: name and the first three numbers of its addresses; its host end is .1."""

    bridge: str
    prefix: str

    @property
    def gateway(self) -> str:
        return f"{self.prefix}.1"

    @classmethod
    def claim(cls) -> Network:
        """The first bridge that nobody has; several clouds may stand side by side."""
        routes = call("ip", "-4", "route", "show", "table", "all")
        for number in range(64):
            prefix = f"10.231.{number}"
            if f"{prefix}." in routes:
                continue
            network = cls(f"simc{number}", prefix)
            made = subprocess.run(["ip", "link", "add", network.bridge, "type", "bridge"], capture_output=True,
                                  text=True, check=False)  # fmt: skip
            if made.returncode == 0:
                call("ip", "addr", "add", f"{network.gateway}/24", "dev", network.bridge)
                call("ip", "link", "set", network.bridge, "up")
                return network
            if "exists" not in made.stderr:
                raise MachineError(f"no bridge: {made.stderr.strip()}")
        raise MachineError("no bridge: 64 simulated clouds stand on this machine. Fix: python -m tests.cloud down")

    def release(self) -> None:
        """Remove the bridge and every cable still in it."""
        links = call("ip", "-o", "link", "show", "master", self.bridge, check=False)
        for name in re.findall(r"^\d+: ([^@:]+)", links, re.MULTILINE):
            call("ip", "link", "del", name, check=False)
        call("ip", "link", "del", self.bridge, check=False)


@dataclass
class Box:
    """A running machine. `folder` is an empty place to mount on, seen by the machine alone."""

    name: str
    number: int
    network: Network
    folder: Path
    mark: str
    port: int
    disk_bytes: int
    layers: Sequence[Path] = ()
    binds: Sequence[Path] = ()
    host_key: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    link: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def ip(self) -> str:
        return f"{self.network.prefix}.{self.number}"

    @property
    def cable(self) -> str:
        """The host end of its veth pair; a name has at most 15 letters."""
        return f"{self.network.bridge}v{self.number}"

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Make the namespaces and start the command in them; returns when the root view stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        inside = [
            "bash", str(INSIDE), str(self.folder), str(self.disk_bytes), self.name, f"{self.ip}/24",
            self.network.gateway, str(self.port), ":".join(map(str, self.layers)), ":".join(map(str, self.binds)),
        ]  # fmt: skip
        apart = "unshare --mount --pid --fork --uts --ipc --net --propagation private --kill-child=SIGKILL"
        environ = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", MARK: self.mark, **env}
        self.process = subprocess.Popen(
            [*apart.split(), *inside, *command], env=environ, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        try:
            self._expect("born")
            call(
                "ip",
                "link",
                "add",
                self.cable,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                str(self.process.pid),
            )
            call("ip", "link", "set", self.cable, "master", self.network.bridge, "up")
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            self.host_key = " ".join(self._expect("ssh-").split()[:2])
        except (MachineError, OSError):
            self.destroy()
            raise

    def _expect(self, start: str) -> str:
        assert self.process and self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line.startswith(start):
            self.destroy()
            raise MachineError(f"{self.name} did not come up: {line.strip()} {self.process.stderr.read().strip()}")
        return line

    @property
    def first_pid(self) -> int | None:
        """Process 1 of the machine, as this system numbers it."""
        if not self.process or self.process.poll() is not None:
            return None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(children.read_text().split()[0])
        return None

    def enter(self, *command: str) -> str:
        """Run a command inside, as root; what it said."""
        return call("nsenter", "-t", str(self.first_pid), "-m", "-p", "-n", "-u", "-i", "--root",
                    "env", "HOME=/root", *command)  # fmt: skip

    def cut(self, on: bool) -> None:
        """Pull the cable out, or put it in again: nothing is answered, no connection is told."""
        call("ip", "link", "set", self.cable, "down" if on else "up", check=False)

    def slow(self, mbit: float, delay_ms: float = 0.0) -> None:
        """Both ways at most so many Mbit/s (a token bucket at each end); with a delay, over `link.py`."""
        if delay_ms:
            return self._stretch(mbit, delay_ms)
        burst = max(4096, int(mbit * 1e6 / 8 / 100))  # a hundredth of a second's worth
        bucket = f"tbf rate {int(mbit * 1e6)}bit burst {burst}b latency 300ms".split()
        call("tc", "qdisc", "replace", "dev", self.cable, "root", *bucket)
        return self._inside("tc", "qdisc", "replace", "dev", "eth0", "root", *bucket)

    def _inside(self, *command: str) -> None:
        """Run a command of this system on the machine's network."""
        call("nsenter", "-t", str(self.first_pid), "-n", *command)

    def _stretch(self, mbit: float, delay_ms: float) -> None:
        """In place of the cable a link of two taps; addresses stay, so what was connected stays so."""
        mac = self.enter("cat", "/sys/class/net/eth0/address").strip()
        self._unlink()
        call("ip", "link", "del", self.cable, check=False)
        inner = f"{self.cable}i"
        argv = [sys.executable, str(INSIDE.with_name("link.py")), self.cable, inner, str(mbit), str(delay_ms)]
        self.link = subprocess.Popen(argv, env={MARK: self.mark, "PATH": PATH}, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
        assert self.link.stdout
        if self.link.stdout.readline() != "ready\n":
            raise MachineError(f"{self.name}: no link of taps (is /dev/net/tun there?)")
        call("ip", "link", "set", self.cable, "master", self.network.bridge, "up")
        call("ip", "link", "set", inner, "netns", str(self.first_pid), "name", "eth0", "address", mac)
        self._inside("ip", "addr", "add", f"{self.ip}/24", "dev", "eth0")
        self._inside("ip", "link", "set", "eth0", "up")

    def _unlink(self) -> None:
        if self.link:
            self.link.kill()
            self.link.wait()
            self.link = None

    def fill_disk(self) -> None:
        """Leave its disk no room: its size becomes what is used."""
        used = int(self.enter("df", "--output=used", "-B1", "/").split()[-1])
        self.enter("mount", "-o", f"remount,size={used + 4096}", "/")

    def destroy(self) -> None:
        """End it: processes, mounts, network, what it wrote. Nothing is left and nothing is saved."""
        process = self.process
        self._unlink()
        if process:
            first = self.first_pid
            for pid in (first, process.pid):
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(pid, signal.SIGKILL)  # type: ignore[arg-type]
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
        call("ip", "link", "del", self.cable, check=False)
        _remove(self.folder)


def _remove(folder: Path) -> None:
    """Remove a mount point; it is busy until the last mount namespace that saw a file system on it is gone."""
    shutil.rmtree(folder, ignore_errors=True)


def pids_of(mark: str) -> Iterator[int]:
    """Every process whose environment carries this cloud's mark."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def end_all(mark: str, timeout_s: float = 10.0) -> list[int]:
    """Kill every process of this cloud and wait until they are gone; those that remain."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while left := list(pids_of(mark)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        pause.wait(0.02)
    return []
