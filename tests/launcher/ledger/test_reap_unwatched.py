"""The reaper that nobody watches: in the background of verbs that rent, on a timer's settings, and its alarms."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from test_reap_machines import SCRIPTED, Clock, Ground

from launcher.errors import BadInputError
from launcher.home import Home
from launcher.reaper import reap
from launcher.reaper.alarm import VARIABLE, raise_alarm
from launcher.reaper.behind import reap_behind
from launcher.reaper.environment import read_environment


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a ledger in its own file."""
    return Home(tmp_path / "home")


@pytest.fixture
def ground(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    script = tmp_path / "script.json"
    monkeypatch.setenv("LAUNCHER_SCRIPT", str(script))
    monkeypatch.syspath_prepend(str(SCRIPTED))
    made = Ground(home, Clock(), script)
    made.says(fractions=[0.5])
    return made


def test_a_verb_that_rents_does_not_wait_for_a_provider_that_hangs(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reap_behind(ground.home, ground.ledger) is None  # a home that has never rented
    ground.clock.time = datetime.now(UTC) - timedelta(hours=9)
    lease = ground.rent("key")
    monkeypatch.setenv("LAUNCHER_WITHOUT", "reaper")
    assert reap_behind(ground.home, ground.ledger) is None
    monkeypatch.delenv("LAUNCHER_WITHOUT")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTED))
    with ground.script.with_name("script.json.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its destroy does not answer
        process = reap_behind(ground.home, ground.ledger)
        assert process is not None
        assert process.poll() is None
        assert ground.machines() == {lease.label}
    assert process.wait(60) == 0, (ground.home.root / "reap.log").read_text()
    assert ground.machines() == set()
    assert reap_behind(ground.home, ground.ledger) is None  # nothing is left, and it has only just looked


def test_the_file_of_a_timers_settings_must_be_private_and_never_beats_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "reap.env"
    read_environment(file)  # not there: nothing to read
    monkeypatch.setenv("HELD", "here")
    monkeypatch.delenv("READ", raising=False)
    file.write_text("# keys\nHELD=there\nexport READ='a b=c'\n\n")
    file.chmod(0o644)
    with pytest.raises(BadInputError, match="others may read it"):
        read_environment(file)
    file.chmod(0o600)
    read_environment(file)
    assert (os.environ.pop("READ"), os.environ["HELD"]) == ("a b=c", "here")
    file.write_text("sk-secret\n")
    with pytest.raises(BadInputError) as told:
        read_environment(file)
    assert "sk-secret" not in str(told.value)


@pytest.fixture
def service() -> Iterator[HTTPServer]:
    """What an apprise address of the loopback is posted."""
    heard: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.answer)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.heard, server.answer = heard, 200  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_what_stays_pending_is_told_once_in_six_hours_and_when_it_is_over(
    ground: Ground, service: HTTPServer
) -> None:
    environ = {VARIABLE: f"json://127.0.0.1:{service.server_port}/s3cr3t"}
    heard: list[dict[str, str]] = service.heard  # type: ignore[attr-defined]
    lease = ground.rent("key")
    ground.says(fractions=[0.5], refuse_release=10**6)
    ground.clock.time += timedelta(hours=9)

    def sweep() -> list[str]:
        return raise_alarm(ground.home, reap(ground.home, ground.ledger, ground.clock), ground.clock, environ)

    service.answer = 500  # type: ignore[attr-defined]
    (wrong,) = sweep()
    assert "s3cr3t" not in wrong
    service.answer = 200  # type: ignore[attr-defined]
    heard.clear()
    for _ in range(3):
        assert sweep() == []
    (first,) = heard  # what could not be told was told by the next sweep, and not again by those after it
    assert first["title"] == "STILL BILLING? 1 rented machine not released"
    assert f"{lease.label} (run {lease.run}) at $0.40/h: scripted did not confirm that it is gone" in first["message"]
    assert "To end it by hand: https://scripted.invalid/machines" in first["message"]
    ground.clock.time += timedelta(hours=6)
    sweep()
    assert len(heard) == 2
    ground.says(fractions=[0.5])
    sweep()
    sweep()
    assert [told["title"] for told in heard[2:]] == ["Released after all"]
    assert raise_alarm(ground.home, reap(ground.home, ground.ledger, ground.clock), ground.clock, {}) == []
