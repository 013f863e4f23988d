"""Which machine of how many this is, and how many devices of it train: by the spec and SkyPilot, never guessed.

SkyPilot starts the same command on every node of a job and sets SKYPILOT_NODE_RANK, SKYPILOT_NODE_IPS (one a line,
the head first), SKYPILOT_NUM_NODES and SKYPILOT_NUM_GPUS_PER_NODE (its documentation, "Distributed jobs on many
nodes", 0.14.1). Without them it is one machine. Standard library only.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from recipes.contract import RecipeExit, RecipeFailure

NODE, NODES = "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"
ADDRESSES, GPUS = "SKYPILOT_NODE_IPS", "SKYPILOT_NUM_GPUS_PER_NODE"
HERE = "127.0.0.1"
#: Where node 0 meets the others, unless MASTER_PORT says another; which port training itself takes is told there.
MEETING_PORT, PORT = 29400, "MASTER_PORT"


@dataclass(frozen=True)
class Place:
    """One machine among those of a job. `devices` processes train on each of `nodes` machines."""

    devices: int = 1
    node: int = 0
    nodes: int = 1
    addresses: tuple[str, ...] = (HERE,)  # of every machine, node 0's first
    meeting_port: int = MEETING_PORT

    @property
    def world(self) -> int:
        """Processes that train, on all machines together."""
        return self.devices * self.nodes

    @property
    def is_head(self) -> bool:
        """Whether this machine writes what the run leaves behind."""
        return self.node == 0


def place_of(devices: int | Literal["auto"], told: Mapping[str, str]) -> Place:
    """This machine's place by the spec's `devices` and the environment; RecipeFailure (bad input) for a wrong one."""
    nodes, node = _number(told, NODES, 1), _number(told, NODE, 0)
    each = max(1, _number(told, GPUS, 1)) if devices == "auto" else devices  # 0: a machine without a GPU
    if nodes <= 1:
        return Place(each)
    addresses = tuple(told.get(ADDRESSES, "").split())
    if len(addresses) != nodes or not 0 <= node < nodes:
        raise RecipeFailure(
            RecipeExit.BAD_INPUT,
            f"{NODES} is {nodes}, {NODE} is {node} and {ADDRESSES} names {len(addresses)} machines: start it as "
            "SkyPilot does, once on each machine, with the addresses of all",
        )
    return Place(each, node, nodes, addresses, _number(told, PORT, MEETING_PORT))


def _number(told: Mapping[str, str], name: str, otherwise: int) -> int:
    text = told.get(name, "").strip()
    if not text:
        return otherwise
    if not text.isdigit():
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"{name}: {text!r} is not a whole number")
    return int(text)


def interface_of(address: str) -> str | None:
    """The name of this machine's network interface that has an IPv4 address; None where none says so."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:  # SIOCGIFADDR, as netdevice(7) has it
                found = fcntl.ioctl(asked.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asked:
        asked.bind(("", 0))
        return int(asked.getsockname()[1])
