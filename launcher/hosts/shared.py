"""One ssh connection that transfers share: opening one takes some eight round trips, each time.

OpenSSH's own multiplexing (ssh_config(5), ControlMaster and ControlPath), by hand: the master is a child of ours that
lives until the host is closed, or until we die, because what it runs there ends with its standard input. Its socket
lies in the lease's own folder, which nobody else can read. Whatever is wrong with it, a transfer calls for itself.
"""

from __future__ import annotations

import secrets
import subprocess
import threading
from contextlib import suppress

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts.lease_keys import LeaseKeys

SOCKET = "shared-"  # and a name of its own: another process may speak to the same machine
_POLL_S = 0.02


class SharedLine:
    """The connection of one host's transfers. Any thread may ask."""

    def __init__(self, keys: LeaseKeys, clock: Clock, connect_s: float) -> None:
        self._keys, self._clock, self._connect_s = keys, clock, connect_s
        self._turn = threading.Lock()
        self._master: subprocess.Popen[bytes] | None = None
        self._name = ""
        self._until = 0.0

    @effect("host.line")
    def begin(self) -> None:
        """Call, without waiting for an answer; nothing happens where the line stands, or no key is pinned yet."""
        with self._turn:
            if (self._master is not None and self._master.poll() is None) or self._keys.pinned is None:
                return
            self._hang_up()
            self._name = f"{SOCKET}{secrets.token_hex(4)}"  # short: a socket's path has 100 letters at most
            command = ["ssh", "-F", "ssh_config", "-M", "-S", self._name, "lease", "exec cat >/dev/null"]
            with suppress(OSError):
                self._master = subprocess.Popen(
                    command, cwd=self._keys.folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self._until = self._clock.monotonic() + self._connect_s

    def options(self) -> list[str]:
        """What makes ssh use it, once it stands; empty where it does not."""
        self.begin()
        while self._master is not None and self._master.poll() is None:
            if (self._keys.folder / self._name).exists():
                return ["-S", self._name]
            if self._clock.monotonic() > self._until:
                self.close()
                break
            self._clock.sleep(_POLL_S)
        return []

    def close(self) -> None:
        """Hang up; the next transfer calls again."""
        with self._turn:
            self._hang_up()

    @effect("host.hang_up")
    def _hang_up(self) -> None:
        master, self._master = self._master, None
        if master is None:
            return
        master.kill()
        master.wait()
        if master.stdin:
            master.stdin.close()
        with suppress(OSError):
            (self._keys.folder / self._name).unlink()
