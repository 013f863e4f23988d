"""A long, thin link: carries frames between two taps, each way at a rate and with a delay. One process a machine.

For kernels without netem. Neither tap outlives this process. Arguments: the two names, Mbit/s, delay in ms one way.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
PATIENCE_S = 0.3  # what waits longer than this for its turn is dropped, as a router's buffer would


class Way:
    """One direction."""

    def __init__(self, source: int, sink: int, bits_per_s: float, delay_s: float) -> None:
        self.source, self.sink, self.bits_per_s, self.delay_s = source, sink, bits_per_s, delay_s
        self.free_at = 0.0  # when the last frame that was let in will have left
        self.under_way: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Let one frame in, or drop it."""
        frame, now = os.read(self.source, 65536), time.monotonic()
        if self.free_at - now > PATIENCE_S:
            return
        self.free_at = max(now, self.free_at) + len(frame) * 8 / self.bits_per_s
        self.under_way.append((self.free_at + self.delay_s, frame))

    def deliver(self) -> None:
        """Let out what has arrived."""
        while self.under_way and self.under_way[0][0] <= time.monotonic():
            os.write(self.sink, self.under_way.popleft()[1])


def tap(name: str) -> int:
    """A new tap device; it goes when the descriptor is closed."""
    held = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(held, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return held


def main() -> None:
    outer, inner = (tap(name) for name in sys.argv[1:3])
    rate, delay_s = float(sys.argv[3]) * 1e6, float(sys.argv[4]) / 1e3
    ways = {outer: Way(outer, inner, rate, delay_s), inner: Way(inner, outer, rate, delay_s)}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        due = [way.under_way[0][0] for way in ways.values() if way.under_way]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        for source in select.select(list(ways), [], [], wait)[0]:
            ways[source].take()
        for way in ways.values():
            try:
                way.deliver()
            except OSError:  # a cable that is out carries nothing
                way.under_way.clear()


if __name__ == "__main__":
    main()
