"""A rented machine as a host: fabric for requests, rsync for data, both with this lease's keys alone."""

from __future__ import annotations

import base64
import re
import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts.base import HostError, HostKeyChangedError, HostUnreachableError, StepStatus
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.link import Link, Lost, Patience, key_of
from launcher.hosts.local import PASSED
from launcher.hosts.rsync import rsync
from launcher.hosts.shared import SharedLine

# Box-side settings beside those a recipe may see anywhere: where the machine keeps its GPU's libraries.
PASSED_THERE = (*PASSED, "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CONDA_PREFIX")
WATCHDOG = "watchdog"  # the step that ends the machine when nobody else does: it is left until the end
_PLAIN = re.compile(r"/[A-Za-z0-9._/-]+")
# Text shrinks to a third on the way. Sound and weights do not: what could be saved there, FLAC has saved.
_SQUEEZED = ("-z", "--skip-compress=flac/wav/mp3/ogg/opus/m4a/nemo/ckpt/safetensors/gz/zip/zst")
_PIECE = 1 << 20  # bytes of a file in one answer


class SshHost:
    """A folder on a rented machine, with detached, lock-guarded processes. What drops the line, they survive.

    Any request waits through lost connections for `patience.total_s`, then raises HostUnreachableError; what the
    machine itself refuses is a HostError. Nothing is done twice because an answer was lost.
    """

    def __init__(
        self, address: Address, keys: LeaseKeys, root: str, python: str, clock: Clock, *,
        patience: Patience | None = None, box_python: str = "python3",
    ) -> None:  # fmt: skip
        """`root` is the lease's folder there; `python` the recipes' Python; `box_python` any Python 3.8 or newer.

        Raises ValueError when `root` is not an absolute path of plain characters: it is part of rsync's command line.
        """
        if not _PLAIN.fullmatch(root) or ".." in root.split("/"):
            raise ValueError(f"not a plain absolute path: {root!r}")
        self.root, self.python, self.box_python = root.rstrip("/"), python, box_python
        self._patience = patience or Patience()
        self._keys, self._clock = keys, clock
        self.address = address
        self._link = Link(address, keys, clock, self._patience, box_python)
        self._line = SharedLine(keys, clock, self._patience.connect_s)
        keys.write_config(address, self._patience.connect_s, self._patience.stall_s)

    @effect("host.answers")
    def answers(self, within_s: float) -> bool:
        """Whether the machine answers a request by then; raises HostKeyChangedError, or HostError when it says no."""
        link = Link(self.address, self._keys, self._clock, replace(self._patience, total_s=within_s), self.box_python)
        try:
            link.ask("running", root=self.root)
        except HostKeyChangedError:
            raise
        except HostUnreachableError:
            return False
        finally:
            link.close()
        return True

    def path(self, remote: str) -> str:
        """The absolute path there of a path relative to the lease's folder."""
        return remote if remote.startswith("/") else f"{self.root}/{remote}"

    @effect("host.put")
    def put(self, local: Path, remote: str) -> None:
        """Send a file, or a folder whole (links followed: what they name is not there); a cut transfer resumes."""
        folder = local.is_dir()
        if not folder and not local.is_file():
            raise FileNotFoundError(str(local))
        key, source = key_of(remote), f"{local.absolute()}/" if folder else str(local.absolute())
        target = f"{self.root}/.host/in/{key}/whole" + ("/" if folder else "")
        retry, there = self._link.retry(), -1
        ends = self._clock.monotonic() + self._patience.transfer_s
        while True:
            if self._link.stands:  # else the machine has to show its key first
                self._line.begin()  # while it makes room
            ready = self._ask("prepare", key=key, to=remote, folder=folder)
            self._need_rsync(ready)
            if ready["bytes"] > there:
                retry.progressed()
            there = ready["bytes"]
            basis = ["--link-dest=../basis/" if folder else "--link-dest=basis/"] if ready["basis"] else []
            # Dates are compared to the nanosecond: of two versions written in one second the second one is sent.
            flags = ["-rLpt", "--chmod=u+rwX", "--modify-window=-1", "--inplace", *_SQUEEZED]
            flags += [*basis, "--delete"] if folder else basis
            try:
                arguments = [*flags, "--", source, f"lease:{target}"]
                rsync(self._keys, self._patience, arguments, ends - self._now(), self._line.options())
                break
            except Lost as reason:
                self._line.close()
                retry.wait(reason)
        self._ask("place", key=key, to=remote)

    @effect("host.get")
    def get(self, remote: str, local: Path) -> None:
        """Fetch a file to exactly `local`, atomically; a cut transfer goes on from what has come."""
        local.parent.mkdir(parents=True, exist_ok=True)
        part = local.absolute().with_name(f".{local.name}.part")
        key = key_of(remote)
        if self._link.stands:
            self._line.begin()
        self._need_rsync(self._ask("lend", path=remote, key=key))
        source = f"lease:{self.root}/.host/out/{key}/whole"
        retry, here = self._link.retry(), -1
        ends = self._clock.monotonic() + self._patience.transfer_s
        while True:
            size = part.stat().st_size if part.exists() else 0
            if size > here:
                retry.progressed()
            here = size
            try:
                # -I: what lies here from an earlier attempt is compared by content, never trusted by its date.
                arguments = ["-LtI", "--inplace", "--", source, str(part)]
                rsync(self._keys, self._patience, arguments, ends - self._now(), self._line.options())
                break
            except Lost as reason:
                self._line.close()
                retry.wait(reason)
        part.replace(local)
        self._ask("returned", key=key)

    @effect("host.read")
    def read(self, remote: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """Bytes of a file from an offset; empty when there are none (yet)."""
        pieces: list[bytes] = []
        while limit > 0:
            answer = self._ask("read", path=remote, offset=offset, limit=min(limit, _PIECE))
            piece = base64.b64decode(answer["data"])
            pieces.append(piece)
            offset, limit = offset + len(piece), limit - len(piece)
            if len(piece) < _PIECE:
                break
        return b"".join(pieces)

    @effect("host.start")
    def start(self, step: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a command detached, once: a step that already runs there is left to run."""
        self._ask("start", step=step, argv=list(argv), env=dict(env), passed=PASSED_THERE,
                  python=self.box_python, token=secrets.token_hex(8))  # fmt: skip

    @effect("host.status")
    def status(self, step: str) -> StepStatus:
        """How a step does, asked of its lock."""
        answer = self._ask("status", step=step)
        return StepStatus(answer["state"], answer["code"])

    @effect("host.signal")
    def signal(self, step: str, signum: int) -> None:
        """Send a signal to a step's command, if it runs."""
        self._ask("signal", step=step, signum=int(signum), token=secrets.token_hex(8))

    @effect("host.steps")
    def running_steps(self) -> list[str]:
        """The steps that still hold their lock."""
        return [str(name) for name in self._ask("running")["steps"]]

    @effect("host.clear")
    def clear(self, steps: Sequence[str]) -> None:
        """Remove these steps, what they made and their specs."""
        self._ask("clear", steps=list(steps))

    @effect("host.expect")
    def expect(self, step: str) -> None:
        """Make ready for a step that is started on the machine by somebody else: it counts as absent until then.

        Raises HostError where it still runs.
        """
        self._ask("expect", step=step)

    @effect("host.wipe")
    def wipe(self) -> None:
        """Remove the lease's folder. Space that was freed is the provider's to overwrite: no program there can."""
        self._ask("wipe")

    def wipe_within(self, within_s: float) -> None:
        """End every step but the watchdog, and remove the lease's folder; raises when that is not done by then."""
        patience = replace(self._patience, total_s=within_s, answer_s=within_s, connect_s=min(10.0, within_s))
        link = Link(self.address, self._keys, self._clock, patience, self.box_python)
        ends = self._now() + within_s
        try:
            while steps := [s for s in link.ask("running", root=self.root)["steps"] if s != WATCHDOG]:
                for step in steps:
                    link.ask("signal", root=self.root, step=step, signum=int(signal.SIGKILL),
                             token=secrets.token_hex(8))  # fmt: skip
                if self._now() > ends:
                    raise HostError(f"{', '.join(map(str, steps))} did not end on {self.address}")
                self._clock.sleep(0.1)
            link.ask("wipe", root=self.root)
        finally:
            link.close()

    def close(self) -> None:
        """Hang up; the next request calls again."""
        self._line.close()
        self._link.close()

    def _ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        return self._link.ask(verb, root=self.root, **fields)

    def _now(self) -> float:
        return self._clock.monotonic()

    def _need_rsync(self, answer: Mapping[str, Any]) -> None:
        if not answer["rsync"]:
            raise HostError(
                f"{self._link.address} has no rsync, which carries the data",
                fix="Add it to the image or to its setup: apt-get update && apt-get install -y rsync",
            )
