"""The watchdog as it is on a machine: real processes, and a provider on loopback that it calls."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.clock import SystemClock
from launcher.hosts import LocalHost
from launcher.watchdog import STEP, Request, watch
from launcher.watchdog.on_box import filled

WORK = "import time, sys; open(sys.argv[1], 'w').close(); time.sleep(600)"
CLOCK = SystemClock()


class Provider:
    """Answers every call with the next of `statuses` (the last one for ever), and keeps what it was asked."""

    def __init__(self, *statuses: int) -> None:
        self.asked: list[dict[str, Any]] = []
        outer, left = self, list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_DELETE(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                outer.asked.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider(200)
    yield made
    made.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    host = LocalHost(tmp_path / "lease", Path(sys.executable), CLOCK)
    yield host
    for step in host.running_steps():
        host.signal(step, 9)


def until(what: Any, timeout_s: float = 60.0) -> None:
    ends = CLOCK.monotonic() + timeout_s
    while not what():
        assert CLOCK.monotonic() < ends, "it did not happen"
        CLOCK.sleep(0.05)


def soon(seconds: float = 1.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def at_work(host: LocalHost, tmp_path: Path) -> Path:
    """A step that runs, and data it works on."""
    data = tmp_path / "clip.flac"
    data.write_bytes(b"sound")
    host.put(data, "data/clip.flac")
    host.start("finetune", [sys.executable, "-c", WORK, str(tmp_path / "up")], {})
    until((tmp_path / "up").exists)
    return tmp_path / "lease"


def told(root: Path) -> dict[str, Any]:
    file = root / "watchdog.json"
    held: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return held


def test_at_the_deadline_work_ends_and_what_was_sent_is_wiped(host: LocalHost, tmp_path: Path) -> None:
    root = at_work(host, tmp_path)
    watch(host, soon(), None, CLOCK)
    until(lambda: told(root).get("state") == "ended")
    assert host.status("finetune").state != "running"
    assert not (root / "data").exists()
    assert told(root)["said"] == "this machine may not end itself"
    assert host.running_steps() == [STEP]  # it goes on for as long as the machine is there


def test_before_the_deadline_nothing_is_touched(host: LocalHost, tmp_path: Path, provider: Provider) -> None:
    root = at_work(host, tmp_path)
    watch(host, soon(3600), Request("DELETE", provider.url), CLOCK)
    until(lambda: told(root).get("state") == "watching")
    CLOCK.sleep(1.0)
    assert sorted(host.running_steps()) == ["finetune", STEP]
    assert (root / "data" / "clip.flac").read_bytes() == b"sound"
    assert provider.asked == []


def test_the_machine_asks_for_its_own_end_with_what_it_alone_was_given(
    host: LocalHost, tmp_path: Path, provider: Provider
) -> None:
    root = at_work(host, tmp_path)
    url = "${NO_SUCH_SETTING:-" + provider.url + "}/v1/pods/me"
    call = Request("DELETE", url, {"Authorization": "k=${PATH}"}, "{}")
    watch(host, soon(), call, CLOCK)
    until(lambda: told(root).get("state") == "ended")
    assert (provider.asked[0]["path"], provider.asked[0]["body"]) == ("/v1/pods/me", "{}")
    assert "/bin" in provider.asked[0]["key"].removeprefix("k=")
    assert told(root)["answered"] is True
    assert host.running_steps() == [STEP]


@pytest.mark.parametrize("statuses", [(500,), (404,)])
def test_a_call_that_fails_is_followed_by_the_wipe(host: LocalHost, tmp_path: Path, statuses: tuple[int]) -> None:
    refusing = Provider(*statuses)
    root = at_work(host, tmp_path)
    watch(host, soon(), Request("DELETE", refusing.url), CLOCK)
    until(lambda: told(root).get("state") == "ended")
    refusing.close()
    assert len(refusing.asked) == 1
    assert told(root)["answered"] is False
    assert not (root / "data").exists()


def test_it_is_started_once(host: LocalHost, tmp_path: Path) -> None:
    watch(host, soon(3600), None, CLOCK)
    first = json.loads((tmp_path / "lease" / "steps" / STEP / "alive.json").read_text())["pid"]
    watch(host, soon(1), None, CLOCK)
    assert json.loads((tmp_path / "lease" / "steps" / STEP / "alive.json").read_text())["pid"] == first
    os.kill(first, 0)


def test_names_of_settings_are_filled_and_nothing_else() -> None:
    held = {"A": "1", "B_2": "$C"}
    assert filled("${A}/${B_2}/${C}/${D:-x:y}/$A", held) == "1/$C//x:y/$A"
