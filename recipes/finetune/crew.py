"""Starts the processes that train on this machine, one a device, and ends them all when one of them fails.

It only watches: training, events and checkpoints are its processes' own, and the first of them does what a single
process would do. Standard library only: it takes no memory that training needs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from recipes.finetune.line import AGAIN, LINE, MOST_BYTES, Ending, cause, unpacked
from recipes.finetune.places import Place, interface_of

#: How long the others may take to say why they end, once one has died: it may only have lost a peer.
WORDS_S = 5.0
#: How long a process whose line was cut may take to end before it is killed.
MANNERS_S = 3.0


@dataclass
class _Member:
    rank: int
    process: subprocess.Popen[bytes]
    line: socket.socket

    def ending(self, world: int) -> Ending | None:
        """How it ended, once it has."""
        code = self.process.poll()
        if code is None:
            return None
        with suppress(OSError):
            if told := unpacked(self.line.recv(MOST_BYTES)):
                return told
        who = f"process {self.rank} of the {world} that train together"
        if code < 0 and code != -signal.SIGABRT:  # which is how libraries end a process whose peer is gone
            name = signal.Signals(-code).name
            return Ending("killed", 128 - code, f"{who} was killed by {name}: the others were ended")
        return Ending("crashed", abs(code), f"{who} died without a word (exit code {code}): the others were ended")


class Crew:
    """The processes of one machine, from their start to `end`."""

    def __init__(self, place: Place, port: int, again: Mapping[str, Any] | None = None) -> None:
        self._place = place
        self._members: list[_Member] = []
        self._endings: dict[int, Ending] = {}  # in the order in which they were seen
        self._died_at: float | None = None
        for local in range(place.devices):
            try:
                self._members.append(self._start(local, port, again))
            except OSError:
                self.end()
                raise

    def _start(self, local: int, port: int, again: Mapping[str, Any] | None) -> _Member:
        place = self._place
        ours, theirs = socket.socketpair()
        env = os.environ | {
            "RANK": str(place.node * place.devices + local), "WORLD_SIZE": str(place.world), "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(place.devices), "NODE_RANK": str(place.node),
            "MASTER_ADDR": place.addresses[0], "MASTER_PORT": str(port), LINE: str(theirs.fileno()),
        }  # fmt: skip
        env.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // place.devices)))
        env.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP tells what it need not look for
        interface = interface_of(place.addresses[place.node])
        for name in ("GLOO_SOCKET_IFNAME", *(("NCCL_SOCKET_IFNAME",) if place.nodes > 1 else ())):
            if interface:
                env.setdefault(name, interface)
        if again is not None:
            env[AGAIN] = json.dumps(again)
        command = [sys.executable, *sys.orig_argv[1:]]  # this very command again, whatever way it was started
        process = subprocess.Popen(command, env=env, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        theirs.close()
        ours.setblocking(False)
        return _Member(int(env["RANK"]), process, ours)

    def look(self) -> Ending | None:
        """How this machine's part ended, once that is known; None while it goes on."""
        for member in self._members:
            if member.rank not in self._endings and (ended := member.ending(self._place.world)):
                self._endings[member.rank] = ended
        bad = [ending for ending in self._endings.values() if ending.kind != "done"]
        if bad:
            self._died_at = self._died_at or time.monotonic()
            waited = time.monotonic() - self._died_at > WORDS_S
            found = cause(bad)
            return found if found.knows or waited or len(self._endings) == len(self._members) else None
        return self._endings[self._members[0].rank] if len(self._endings) == len(self._members) else None

    def ask(self, number: int) -> bool:
        """Pass a signal on to the first process, which decides for all; whether it still lived."""
        first = self._members[0].process if self._members else None
        if first is None or first.poll() is not None:
            return False
        first.send_signal(number)
        return True

    def end(self) -> None:
        """End every process that is left; returns when none is."""
        for member in self._members:
            member.line.close()  # they end by themselves when they see it
        until = time.monotonic() + MANNERS_S
        for member in self._members:
            try:
                member.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
