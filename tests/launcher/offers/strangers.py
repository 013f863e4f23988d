"""Servers and programs on this machine that answer as a provider would, or as badly as one might."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@dataclass
class StillClock:
    """A clock that moves when it is told to."""

    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - NOW).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Asked:
    """One question that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Stranger:
    """A server on loopback. `says`: bytes or JSON to answer with, a function of the path to them, or a `Writes`."""

    url: str = ""
    says: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    date: datetime | None = NOW
    before: Callable[[], object] = lambda: None  # called when a question has arrived
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def stranger() -> Iterator[Stranger]:
    """A running server, ended with the block; what hangs in it is let go."""
    held = Stranger()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            body = json.loads(raw) if raw else None
            held.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            held.before()
            says = held.says
            if isinstance(says, Writes):
                with contextlib.suppress(OSError):
                    says.write(self, held)
                self.close_connection = True
                return
            says = says(self.path) if callable(says) else says
            reply = says if isinstance(says, bytes) else json.dumps(says).encode()
            self.send_response_only(held.status)
            if held.date:
                self.send_header("Date", format_datetime(held.date, usegmt=True))
            for name, value in ({"Content-Length": str(len(reply))} | held.headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(reply)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield held
    finally:
        held.over.set()
        server.shutdown()
        server.server_close()


@dataclass
class Writes:
    """A bad way to answer."""

    write: Callable[[BaseHTTPRequestHandler, Stranger], None]


def _says_nothing(handler: BaseHTTPRequestHandler, held: Stranger) -> None:
    held.over.wait(60)


def _trickles(handler: BaseHTTPRequestHandler, held: Stranger) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[")
    while not held.over.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def _floods(handler: BaseHTTPRequestHandler, held: Stranger) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n[")
    for _ in range(1000):
        handler.wfile.write(b" " * 1_000_000)


def _breaks_off(handler: BaseHTTPRequestHandler, held: Stranger) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[")


def _no_http(handler: BaseHTTPRequestHandler, held: Stranger) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


SAYS_NOTHING, TRICKLES, FLOODS = Writes(_says_nothing), Writes(_trickles), Writes(_floods)
BREAKS_OFF, NO_HTTP = Writes(_breaks_off), Writes(_no_http)

VAST_ROW: dict[str, Any] = {
    "id": 12345678, "ask_contract_id": 12345678, "machine_id": 88888, "host_id": 55555, "num_gpus": 1,
    "gpu_name": "RTX 4090", "gpu_ram": 24564, "gpu_total_ram": 24564, "gpu_arch": "nvidia", "cuda_max_good": 13.0,
    "dph_base": 0.3, "dph_total": 0.312329, "storage_cost": 0.15, "storage_total_cost": 0.012329,
    "inet_up": 823.4, "inet_down": 914.7, "inet_up_cost": 0.00456, "inet_down_cost": 0.00123, "dlperf": 98.5,
    "reliability2": 0.9962, "verification": "verified", "hosting_type": 0, "geolocation": "Saxony, DE",
    "rentable": True, "rented": False, "is_bid": False, "direct_port_count": 42, "disk_space": 512.0,
}  # fmt: skip

RUNPOD_ROW: dict[str, Any] = {
    "id": "NVIDIA GeForce RTX 4090", "displayName": "RTX 4090", "manufacturer": "Nvidia", "memoryInGb": 24,
    "secureCloud": True, "communityCloud": True, "securePrice": 0.69, "communityPrice": 0.34,
    "secure": {"uninterruptablePrice": 0.69, "stockStatus": "High", "countryCode": "US"},
    "community": {"uninterruptablePrice": 0.34, "stockStatus": None, "countryCode": None},
}  # fmt: skip

BREV_ITEM: dict[str, Any] = {
    "type": "g6e.xlarge", "provider": "aws", "location": "us-east-1", "sub_location": "", "vcpu": 4,
    "supported_gpus": [{"count": 1, "name": "L40S", "manufacturer": "NVIDIA", "memory": "44GiB706MiB",
                        "memory_bytes": {"value": 45776, "unit": "MiB"}}],
    "supported_storage": [{"min_size": "10GiB", "max_size": "16TiB", "type": "ssd",
                           "price_per_gb_hr": {"currency": "USD", "amount": "0.000137"}}],
    "supported_architectures": ["x86_64"], "memory": "32GiB", "stoppable": True, "rebootable": True,
    "base_price": {"currency": "USD", "amount": "1.861"}, "estimated_deploy_time": "7m0s",
}  # fmt: skip

BREV_ROW: dict[str, Any] = {
    "type": "g6e.xlarge", "cloud": "aws", "provider": "aws", "gpu_name": "L40S", "gpu_count": 1,
    "vram_per_gpu_gb": 44.69, "total_vram_gb": 44.69, "capability": 8.9, "vcpus": 4, "memory": "32GiB", "ram_gb": 32,
    "arch": "x86_64", "disk_min_gb": 10, "disk_max_gb": 16384, "disk_price_per_gb_mo": 0.1, "boot_time_seconds": 420,
    "stoppable": True, "rebootable": True, "flex_ports": True, "target_disk_gb": 10, "price_per_hour": 1.861,
}  # fmt: skip
