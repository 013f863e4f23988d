"""The one process: a thread a request, on loopback and on the machines' bridge."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.cloud.cloud import Cloud
from tests.cloud.faults import UnknownFaultError
from tests.cloud.reply import Call, Reply


def serve(cloud: Cloud, providers: list[Any], port: int = 0) -> list[ThreadingHTTPServer]:
    """Servers on the loopback address and the bridge's, at the same port; they run in threads of their own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = None
            split = urlsplit(self.path)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            call = Call(self.command, split.path, dict(parse_qsl(split.query)), body, token)
            try:
                reply = reply_to(cloud, providers, call)
            except Exception:  # noqa: BLE001 - a mistake of the simulation is no answer of a provider's: it is loud
                trouble = traceback.format_exc()
                sys.stderr.write(trouble)
                cloud.note("mistake", trouble=trouble)
                reply = Reply(f"the simulation itself failed: {trouble}", 599, {"Content-Type": "text/plain"})
            if reply.wait_s:
                cloud.over.wait(reply.wait_s)
            self.send_response(reply.status)
            for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.raw)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(reply.raw)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815 - the names that http.server calls

        def date_time_string(self, timestamp: float | None = None) -> str:
            """The Date of an answer is the providers' time, which may jump."""
            return super().date_time_string(cloud.now() if timestamp is None else timestamp)

        def log_message(self, *_: Any) -> None:
            """The event log has it."""

    servers = []
    for host in ("127.0.0.1", cloud.network.gateway):
        server = ThreadingHTTPServer((host, port), Handler)
        server.daemon_threads = True
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
    cloud.url = f"http://{cloud.network.gateway}:{port}"
    return servers


def reply_to(cloud: Cloud, providers: list[Any], call: Call) -> Reply:
    """What is answered: first the simulation's own addresses, then the providers'."""
    own = call.method, call.path
    if own == ("GET", "/_bill"):
        return Reply(cloud.bill())
    if own == ("GET", "/_events"):
        lines = (cloud.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return Reply([json.loads(line) for line in lines])
    if own == ("GET", "/_fault"):
        return Reply([fault.told() for fault in cloud.script.faults])
    if own == ("POST", "/_fault"):
        try:
            return Reply(cloud.fault(call.body or {}))
        except (UnknownFaultError, KeyError) as error:
            return Reply({"error": str(error)}, 400)
    for provider in providers:
        reply = provider.answer(call)
        if reply is not None:
            return reply
    return Reply({"error": f"nothing at {call.method} {call.path}"}, 404)
