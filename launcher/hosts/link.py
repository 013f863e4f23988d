"""One machine over ssh (fabric): a request goes out, an answer comes back, however often the line drops."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
import shlex
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fabric
import invoke.runners
import paramiko
from paramiko.hostkeys import HostKeyEntry

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts import box
from launcher.hosts.base import HostError, HostUnreachableError
from launcher.hosts.lease_keys import Address, LeaseKeys
from recipes import supervise

T = TypeVar("T")

_LONGEST = 8 << 20  # bytes of one answer: a piece of a file (1 MiB), twice in base64, and room

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what it would say on stderr, our errors say

# Reads one line, makes of it the two modules and the request, prints one line that begins with the request's mark.
_LOADER = """
import sys, json, zlib, base64, types
held = json.loads(zlib.decompress(base64.b64decode(sys.stdin.readline())))
made = {}
for name in ("recipes", "recipes.supervise", "box"):
    made[name] = sys.modules[name] = types.ModuleType(name)
    exec(compile(held["text"].get(name, ""), name, "exec"), made[name].__dict__)
    if name == "recipes.supervise":
        made["recipes"].supervise = made[name]
answer = made["box"].serve(held["ask"], held["text"]["recipes.supervise"])
print(held["mark"] + base64.b64encode(zlib.compress(json.dumps(answer).encode(), 1)).decode() + ".", flush=True)
"""
_TEXT = {
    name: Path(str(module.__file__)).read_text(encoding="utf-8")
    for name, module in (("recipes.supervise", supervise), ("box", box))
}


@dataclass(frozen=True)
class Patience:
    """How long we wait, in seconds, before we call something lost."""

    connect_s: float = 15.0  # for a connection, a banner, an authentication: each
    answer_s: float = 60.0  # for the answer to one request
    stall_s: float = 30.0  # for the next byte of a transfer
    total_s: float = 300.0  # without any progress, over all attempts: then HostUnreachableError
    transfer_s: float = 6 * 3600.0  # for one transfer as a whole, however it trickles


class Lost(Exception):  # noqa: N818  # not an error yet: it is tried again
    """The line dropped, or nobody answered."""


class Retry:
    """Attempts with growing pauses, until one succeeds or the patience without progress is over."""

    def __init__(self, address: Address, clock: Clock, patience: Patience) -> None:
        self._address, self._clock, self._patience = address, clock, patience
        self._since, self._pause_s = clock.monotonic(), 0.25

    def progressed(self) -> None:
        """The machine was heard: patience begins anew."""
        self._since, self._pause_s = self._clock.monotonic(), 0.25

    def wait(self, reason: Lost) -> None:
        """Pause before the next attempt; raises HostUnreachableError when there is to be none."""
        left = self._patience.total_s - (self._clock.monotonic() - self._since)
        if left <= 0:
            raise HostUnreachableError(
                f"{self._address} has not answered for {self._patience.total_s:.0f} s ({reason})",
                fix="What it was doing may still run there.",
            ) from reason
        self._clock.sleep(min(self._pause_s, left))
        self._pause_s = min(self._pause_s * 2, 10.0)

    def run(self, attempt: Callable[[], T]) -> T:
        """The first attempt that is not Lost."""
        while True:
            try:
                return attempt()
            except Lost as reason:
                self.wait(reason)


class Link:
    """Requests to one machine's `box.py`. Any thread may ask; they take turns."""

    def __init__(self, address: Address, keys: LeaseKeys, clock: Clock, patience: Patience, python: str) -> None:
        self.address, self.keys, self.patience = address, keys, patience
        self._clock = clock
        self._command = f"exec {shlex.quote(python)} -I -S -c {shlex.quote(_LOADER)}"
        self._python = python
        self._connection: fabric.Connection | None = None
        self._turn = threading.Lock()
        self._spare: tuple[fabric.Connection, paramiko.Channel] | None = None

    def retry(self) -> Retry:
        """Fresh patience."""
        return Retry(self.address, self._clock, self.patience)

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises FileNotFoundError when what it names is not there, HostError when the machine says no, and
        HostUnreachableError (HostKeyChangedError) when it cannot be asked.
        """
        answer = self.retry().run(lambda: self.ask_once({"verb": verb, **fields}))
        if answer.get("error") == "missing":
            raise FileNotFoundError(answer["message"])
        if "error" in answer:
            raise HostError(f"{self.address} cannot do that ({verb}): {answer['message']}")
        return answer

    @effect("host.request")
    def ask_once(self, ask: dict[str, Any]) -> dict[str, Any]:
        """One attempt; raises Lost."""
        mark = f"answer-{secrets.token_hex(8)}:"
        line = json.dumps({"mark": mark, "text": _TEXT, "ask": ask}).encode()
        whole = base64.b64encode(zlib.compress(line)).decode() + "\n"
        with self._turn:
            try:
                connection = self._connected()
                with _hanging_up_after(self.patience.answer_s, connection) as late:
                    said = connection.run(
                        self._command, in_stream=_Whole(whole), hide=True, warn=True, pty=False, encoding="utf-8"
                    )
            except _LINE_DROPPED as error:
                self._close()
                raise Lost(_reason(error)) from error
            except BaseException:
                self._close()
                raise
            if late.is_set():
                self._close()
                raise Lost(f"no answer within {self.patience.answer_s:g} s")
            answer = _between(said.stdout, mark)
            if answer is not None:
                threading.Thread(target=self._have_spare, args=(self._connection,), daemon=True).start()
                return answer
            if said.exited in (126, 127):
                raise HostError(f"{self.address} cannot start {self._python}: {said.stderr.strip()[-300:]}",
                                fix="The image needs a Python 3.8 or newer by that name.")  # fmt: skip
            if said.exited == 1:
                raise HostError(f"{self.address} did not do what was asked: {said.stderr.strip()[-500:]}")
            self._close()
            raise Lost(f"its answer broke off, exit {said.exited}")

    @property
    def stands(self) -> bool:
        """Whether a connection to the machine with the pinned key is open, as far as one can know."""
        held = self._connection
        return held is not None and bool(held.is_connected)

    def close(self) -> None:
        """Hang up; the next request calls again."""
        with self._turn:
            self._close()

    def _have_spare(self, connection: fabric.Connection) -> None:
        """Open the session of the next request, so that it need not wait for a round trip. Never an error."""
        if self._spare is None or self._spare[0] is not connection:
            with suppress(*_LINE_DROPPED, AttributeError):
                self._spare = (connection, connection.transport.open_session(timeout=self.patience.connect_s))

    def _session(self, connection: fabric.Connection) -> paramiko.Channel:
        """A session of this connection: the one that was opened ahead, else a new one."""
        spare, self._spare = self._spare, None
        if spare is not None and spare[0] is connection and not spare[1].closed:
            return spare[1]
        fresh: paramiko.Channel = connection.transport.open_session()
        return fresh

    def _close(self) -> None:
        self._spare = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> fabric.Connection:
        """The open connection; its host key is the pinned one, or the first one seen, pinned now."""
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        self._close()
        patience = self.patience
        config = fabric.Config(lazy=True)  # nobody's ssh or fabric configuration
        config.runners.remote = partial(_Runner, session=self._session)
        self._connection = connection = fabric.Connection(
            self.address.host, user=self.address.user, port=self.address.port, config=config, forward_agent=False,
            connect_kwargs={
                "key_filename": str(self.keys.private), "allow_agent": False, "look_for_keys": False,
                "timeout": patience.connect_s, "banner_timeout": patience.connect_s,
                "auth_timeout": patience.connect_s, "channel_timeout": patience.connect_s,
            },
        )  # fmt: skip
        pinned = self.keys.pinned
        if pinned is not None:
            port, host = self.address.port, self.address.host
            entry = HostKeyEntry.from_line(f"{host} {pinned}")
            if entry is None or entry.key is None:
                raise self.keys.changed(self.address)
            name = host if port == 22 else f"[{host}]:{port}"
            connection.client.get_host_keys().add(name, entry.key.get_name(), entry.key)
        connection.client.set_missing_host_key_policy(_PinFirst(self.keys))
        try:
            connection.open()
        except paramiko.BadHostKeyException as error:
            shown = f"{error.key.get_name()} {error.key.get_base64()}"
            raise self.keys.changed(self.address, shown) from error
        connection.transport.set_keepalive(max(1, round(patience.stall_s / 2)))
        return connection


@contextmanager
def _hanging_up_after(seconds: float, connection: fabric.Connection) -> Iterator[threading.Event]:
    """Close the connection under whatever still waits for it then; tells whether that was done.

    paramiko (5.1) waits without an end for a request on a session to be granted, and for a full line to take more: a
    machine whose power failed answers neither. Closing the transport ends both. A `timeout` of fabric's begins after
    the first, and closes the session alone, which has to be written to the same full line.
    """
    late, transport = threading.Event(), connection.transport

    def hang_up() -> None:
        late.set()
        transport.close()

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield late
    except _LINE_DROPPED as error:
        if not late.is_set():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from error
    finally:
        timer.cancel()


_LINE_DROPPED = (OSError, EOFError, paramiko.SSHException, invoke.exceptions.Failure,
                 invoke.exceptions.ThreadException)  # fmt: skip


class _PinFirst(paramiko.MissingHostKeyPolicy):
    """The first key that this lease's machine shows is its key from then on."""

    def __init__(self, keys: LeaseKeys) -> None:
        self._keys = keys

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self._keys.pin(f"{key.get_name()} {key.get_base64()}")


class _Runner(fabric.runners.Remote):  # type: ignore[misc]  # fabric carries no types
    """Reads in larger pieces than 1,000 bytes, and lets the terminal's own SIGWINCH handler be."""

    read_chunk_size = 1 << 16

    def __init__(self, *args: Any, session: Callable[[fabric.Connection], paramiko.Channel], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._session = session

    def start(self, command: str, shell: str, env: dict[str, str], timeout: float | None = None) -> None:
        """As fabric's own (3.2.3) without a terminal and without settings, over a session opened ahead."""
        self.channel = self._session(self.context)
        self.send_start_message(command)

    def read_proc_stdout(self, num_bytes: int) -> bytes:
        """A machine that we do not own must not fill our memory either."""
        piece: bytes = super().read_proc_stdout(num_bytes)
        self._said = getattr(self, "_said", 0) + len(piece)
        if self._said > _LONGEST:
            self.channel.close()
            return b""
        return piece

    def respond(self, buffer_: list[str]) -> None:
        """Nothing is awaited in what comes back; joining it all at each piece would cost its square."""

    def stop(self) -> None:
        invoke.runners.Runner.stop(self)
        if hasattr(self, "channel"):
            self.channel.close()


class _Whole:
    """Standard input for a command, handed over at once: invoke would read it character by character, with pauses."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, _size: int = -1) -> str:
        text, self._text = self._text, ""
        return text


def _between(said: str, mark: str) -> dict[str, Any] | None:
    """The answer after its mark, whatever else the machine's shell prints; None when it is not whole."""
    _, found, rest = said.rpartition(mark)
    text, ended, _ = rest.partition(".")
    if not found or not ended:
        return None
    try:
        answer = json.loads(zlib.decompressobj().decompress(base64.b64decode(text), _LONGEST))
    except (ValueError, zlib.error):
        return None
    return answer if isinstance(answer, dict) else None


def _reason(error: BaseException) -> str:
    if isinstance(error, paramiko.AuthenticationException):
        return "it does not accept this lease's key"
    if isinstance(error, invoke.exceptions.ThreadException):
        return "the line dropped"
    return " ".join(str(error).split()) or type(error).__name__


def key_of(remote: str) -> str:
    """A plain name for a path of any spelling, for what is on its way."""
    return hashlib.sha256(remote.encode("utf-8", "surrogateescape")).hexdigest()[:24]
