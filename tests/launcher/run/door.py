"""A door before the simulated cloud: everything asked passes through it, and an answer may be made worse on its way.

The launcher is pointed at it with the variables that point it at the cloud; machines reach the cloud itself.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.cloud.conftest import Standing


@dataclass
class Asked:
    """One question, and the answer that the cloud gave."""

    method: str
    path: str
    token: str
    body: bytes
    status: int = 0
    reply: bytes = b""


Changed = tuple[int, bytes] | None


@dataclass
class Door:
    """`instead` may answer before the cloud is asked, `after` may change what it answered; None changes nothing."""

    standing: Standing
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    instead: Callable[[Asked], Changed] = lambda _asked: None
    after: Callable[[Asked], Changed] = lambda _asked: None

    @property
    def env(self) -> dict[str, str]:
        """The variables that the cloud's environment points elsewhere."""
        return {name: self.url + urlsplit(value).path for name, value in self.standing.env.items()
                if value.startswith("http") and name.endswith("URL")}  # fmt: skip


@contextlib.contextmanager
def door(standing: Standing) -> Iterator[Door]:
    """A door that stands open for the block."""
    held = Door(standing)
    cloud = urlsplit(standing.url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            asked = Asked(self.command, self.path, token, body)
            held.asked.append(asked)
            changed, kind = held.instead(asked), "application/json"
            if changed is None:
                line = http.client.HTTPConnection(str(cloud.hostname), cloud.port or 80, timeout=120)
                passed = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                line.request(self.command, self.path, body, passed)
                reply = line.getresponse()
                asked.status, asked.reply = reply.status, reply.read()
                kind = reply.headers.get("Content-Type", kind)
                line.close()
                changed = held.after(asked)
            status, raw = changed or (asked.status, asked.reply)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Quiet: what was asked is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
