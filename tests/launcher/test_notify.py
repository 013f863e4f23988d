"""Notifications through apprise, to a service on the loopback: told once, failures said, no address ever shown."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from launcher.notify import notify

SECRET = "s3cr3t-token"


class Service(HTTPServer):
    """What was posted, and what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[dict[str, Any]] = []
        self.answer = 200


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(json.loads(body) | {"path": self.path})
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(service: Service) -> str:
    return f"json://127.0.0.1:{service.server_port}/{SECRET}"


def test_the_title_and_the_text_arrive(service: Service) -> None:
    assert notify(["HERE"], "batch sweep: 2 of 3", "a  0.41\nb  0.22", {"HERE": address(service)}) == []
    (heard,) = service.heard
    assert (heard["title"], heard["message"]) == ("batch sweep: 2 of 3", "a  0.41\nb  0.22")


@pytest.mark.parametrize("how", ["refused", "gone", "nonsense", "unset"])
def test_what_cannot_be_told_is_said_without_the_address_and_never_raised(
    service: Service, how: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    service.answer = 500
    held = {
        "refused": address(service), "gone": f"json://127.0.0.1:1/{SECRET}", "nonsense": f"nothing://{SECRET}",
        "unset": "",
    }[how]  # fmt: skip
    with caplog.at_level(logging.DEBUG):
        (wrong,) = notify(["HERE"], "title", "text", {"HERE": held})
    assert wrong.startswith(("HERE", "the address in HERE"))
    out, err = capfd.readouterr()
    told = [record.getMessage() for record in caplog.records if record.name.startswith("apprise")]
    assert SECRET not in wrong + out + err + "".join(told)


def test_one_address_that_fails_keeps_no_other_from_being_told(service: Service) -> None:
    wrong = notify(["A", "B"], "title", "text", {"A": f"json://127.0.0.1:1/{SECRET}", "B": address(service)})
    assert len(wrong) == 1
    assert len(service.heard) == 1
