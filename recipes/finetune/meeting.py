"""Where the machines of one job meet: the head tells the others when to begin, and each hears when another fails.

One TCP connection from each machine to the head, one JSON object a line, both sides saying every few seconds that
they live. Like torch's own rendezvous it is meant for the network of one cluster and asks nobody who he is.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from recipes.finetune.line import Ending
from recipes.finetune.places import Place

#: How long the machines of a job may be apart in coming; their set-up may take one of them longer.
JOIN_S = 1800.0
BEAT_S, SILENT_S = 10.0, 120.0  # says that it lives every, counts as gone after
_MOST_LINE = 1 << 16
_LOOK_S = 0.2


class Wire:
    """One connection: whole messages in and out, and whether the other side still lives."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(BEAT_S)
        self._socket, self._held, self.gone = connected, b"", False
        self._selector = selectors.DefaultSelector()
        self._selector.register(connected, selectors.EVENT_READ)
        self._heard = self._beat = time.monotonic()

    def say(self, **message: Any) -> None:
        """Send a message; who is gone does not hear it."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.gone = True

    def hear(self, within_s: float = 0.0) -> list[dict[str, Any]]:
        """The messages that came, waiting so long for the first."""
        now = time.monotonic()
        if now - self._beat > BEAT_S:
            self._beat = now
            self.say()
        if self._selector.select(within_s):
            try:
                chunk = self._socket.recv(_MOST_LINE)
            except OSError:
                chunk = b""
            self.gone = self.gone or not chunk
            self._held += chunk
            self._heard = time.monotonic()
        self.gone = self.gone or time.monotonic() - self._heard > SILENT_S or len(self._held) > _MOST_LINE
        *lines, self._held = self._held.split(b"\n")
        found = []
        for line in lines:
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and message:
                    found.append(message)
        return found

    def close(self) -> None:
        """Close it."""
        self._selector.close()
        self._socket.close()


class Head:
    """The first machine's side."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._wires: dict[int, Wire] = {}
        self._ended: dict[int, Ending] = {}
        family = socket.AF_INET6 if ":" in place.addresses[0] else socket.AF_INET
        self._server = socket.create_server((place.addresses[0], place.meeting_port), family=family)

    def gather(self, asked: Callable[[], Ending | None], patience_s: float = JOIN_S) -> Ending | None:
        """Wait for every other machine; the failure, when one does not come or somebody asked to end."""
        until = time.monotonic() + patience_s
        self._server.settimeout(_LOOK_S)
        while len(self._wires) < self._place.nodes - 1:
            try:
                wire = Wire(self._server.accept()[0])
            except TimeoutError:
                if ending := asked():
                    return ending
                if time.monotonic() < until:
                    continue
                here = 1 + len(self._wires)
                words = f"{here} of {self._place.nodes} machines came within {patience_s:.0f} s"
                return Ending("failed", 1, f"{words}: nothing was trained")
            told = wire.hear(BEAT_S)
            node = told[0].get("node") if told else None
            if type(node) is not int or not 0 < node < self._place.nodes or node in self._wires:
                wire.close()
                continue
            self._wires[node] = wire
        return None

    def begin(self, port: int, again: dict[str, Any] | None) -> None:
        """Tell all to start their processes, which meet at `port` of this machine."""
        self._ended.clear()
        for wire in self._wires.values():
            wire.say(begin=port, again=again)

    def endings(self) -> list[Ending]:
        """How the other machines that ended otherwise than they should did so."""
        for node, wire in self._wires.items():
            for message in wire.hear():
                with suppress(TypeError):
                    if "ended" in message:
                        self._ended[node] = Ending(**message["ended"])
            if wire.gone and node not in self._ended:
                words = f"machine {node} of {self._place.nodes} is gone: the others were ended"
                self._ended[node] = Ending("killed", 1, words)
        return [ending for ending in self._ended.values() if ending.kind != "done"]

    def close(self, ending: Ending) -> None:
        """Tell all that it is over."""
        for wire in self._wires.values():
            wire.say(end=asdict(ending))
            wire.close()
        self._server.close()


class Guest:
    """Any other machine's side."""

    def __init__(self, place: Place, asked: Callable[[], Ending | None], patience_s: float = JOIN_S) -> None:
        until = time.monotonic() + patience_s
        while True:
            try:
                self._wire = Wire(socket.create_connection((place.addresses[0], place.meeting_port), BEAT_S))
                break
            except OSError:
                if asked() or time.monotonic() > until:
                    raise
                time.sleep(_LOOK_S)
        self._wire.say(node=place.node)
        self._said = False

    def told(self, within_s: float = 0.0) -> tuple[int, dict[str, Any] | None] | Ending | None:
        """(port, what to begin again with) when it is to begin, an Ending when it is to end; None: nothing new."""
        for message in self._wire.hear(within_s):
            if "begin" in message:
                self._said = False
                return int(message["begin"]), message.get("again")
            if "end" in message:
                return Ending(**message["end"])
        return Ending("killed", 1, "the first machine is gone: this one was ended") if self._wire.gone else None

    def tell(self, ending: Ending) -> None:
        """Say, once, how this machine's processes ended."""
        if not self._said:
            self._said = True
            self._wire.say(ended=asdict(ending))

    def close(self) -> None:
        """Leave."""
        self._wire.close()
