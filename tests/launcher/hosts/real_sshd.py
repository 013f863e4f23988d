"""A real sshd on loopback, and a line to it that can be cut, held and counted."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.patience import until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@contextmanager
def at_once(do: Callable[[], object]) -> Iterator[Future[object]]:
    """Something under way while the test does something to it; its error is the test's."""
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(do)
        yield under_way
        under_way.result(60)


class Sshd:
    """OpenSSH's own server, as this user, on a port of its own; its keys can be changed while it is down."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder, self._process = folder, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.new_host_key()
        self._write_config(*settings)
        self.start()

    def new_host_key(self, kind: str = "ed25519") -> None:
        key = self.folder / "host_key"
        for old in (key, key.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True)

    @property
    def host_key(self) -> str:
        return (self.folder / "host_key.pub").read_text()

    def admit(self, public: str) -> None:
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(public + "\n")
        (self.folder / "authorized_keys").chmod(0o600)

    def _write_config(self, *more: str) -> None:
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}", f"PidFile {self.folder / 'pid'}",
            "StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password", "MaxStartups 100", "MaxSessions 100", "PrintMotd no", *more,
        ]  # fmt: skip
        (self.folder / "config").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        command = [SSHD, "-D", "-f", str(self.folder / "config"), "-E", str(self.folder / "log")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it and the sessions it serves (its children), as a machine's restart of sshd would not."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.terminate()
        self._process.wait()
        for child in children:
            subprocess.run(["kill", "-9", child], check=False, stderr=subprocess.DEVNULL)


class Wire:
    """A TCP proxy before sshd: cut (hang up), held (nothing passes, nobody is told), counted."""

    def __init__(self, port: int) -> None:
        self._to, self._pairs, self._lock = port, [], threading.Lock()
        self.up = self.down = 0  # bytes that have passed to the machine, and from it
        self.calls = 0
        self._awaited: dict[str, tuple[int, Callable[[], object]]] = {}
        self.refuses = False
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def when(self, way: str, passed: int, act: Callable[[], object]) -> None:
        """Do something, once, as soon as so many bytes have passed `up` to the machine or `down` from it."""
        self._awaited[way] = (passed, act)

    def hold(self) -> None:
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for side in [side for pair in pairs for side in pair]:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        self.release()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            if self.refuses:
                caller.close()
                continue
            try:
                machine = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                caller.close()
                continue
            with self._lock:
                self._pairs.append((caller, machine))
            for a, b, name in ((caller, machine, "up"), (machine, caller, "down")):
                threading.Thread(target=self._pump, args=(a, b, name), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        try:
            while piece := source.recv(1 << 14):
                self._flows.wait()
                sink.sendall(piece)
                with self._lock:
                    setattr(self, name, getattr(self, name) + len(piece))
                    due = name in self._awaited and getattr(self, name) >= self._awaited[name][0]
                    act = self._awaited.pop(name)[1] if due else None
                if act is not None:
                    act()
        except OSError:
            pass
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
