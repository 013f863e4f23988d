"""The watchdog as it is on a machine: real processes, and a provider on loopback that it calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher import watchdog
from launcher.clock import SystemClock
from launcher.hosts import LocalHost
from launcher.hosts.box import serve
from launcher.providers.live import ENDPOINTS
from launcher.watchdog import COLLECT_WAIT, STEP, Request, watch
from launcher.watchdog.on_box import filled
from tests.patience import until

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


# -- nobody comes back --------------------------------------------------------------------------------------


@pytest.fixture
def soon_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COLLECT_WAIT, "4")


@pytest.mark.usefixtures("soon_alone")
def test_a_job_may_finish_without_its_controller_and_then_the_machine_waits_and_ends(
    host: LocalHost, tmp_path: Path, provider: Provider
) -> None:
    root = at_work(host, tmp_path)
    watch(host, soon(3600), Request("DELETE", provider.url), CLOCK)
    CLOCK.sleep(5.0)  # longer than it waits for anybody
    assert sorted(host.running_steps()) == ["finetune", STEP]
    assert provider.asked == []
    host.signal("finetune", 15)
    until(lambda: told(root).get("state") == "ended")
    assert told(root)["why"] == "nobody came to collect"
    assert len(provider.asked) == 1


@pytest.mark.usefixtures("soon_alone")
def test_whoever_asks_anything_of_the_machine_renews_its_lease(host: LocalHost, tmp_path: Path) -> None:
    watch(host, soon(3600), None, CLOCK)
    root = tmp_path / "lease"
    until(lambda: told(root).get("state") == "watching")
    for _ in range(6):
        serve({"verb": "running", "root": str(root)}, "")
        CLOCK.sleep(1.0)
        assert told(root).get("state") == "watching"
    until(lambda: told(root).get("state") == "ended")
    assert told(root)["why"] == "nobody came to collect"


@pytest.mark.usefixtures("soon_alone")
def test_a_transfer_that_gets_on_renews_it_and_one_that_hangs_does_not(host: LocalHost, tmp_path: Path) -> None:
    root = tmp_path / "lease"
    root.mkdir(exist_ok=True)
    program = tmp_path / "rsync"
    program.symlink_to("/bin/cat")  # what it is called is all that tells a transfer; it carries what comes
    watch(host, soon(3600), None, CLOCK)
    argv = [program, "-", root / "whole"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as carrying:
        assert carrying.stdin
        until(lambda: told(root).get("state") == "watching")
        for _ in range(6):
            carrying.stdin.write(b"x" * 100_000)
            carrying.stdin.flush()
            CLOCK.sleep(1.0)
            assert told(root).get("state") == "watching"
        until(lambda: told(root).get("state") == "ended")  # it still stands there, and carries nothing
        until(lambda: carrying.poll() is not None)  # and is ended with all else
    assert told(root)["why"] == "nobody came to collect"


def test_the_end_takes_what_left_its_step_and_wipes_logs_and_caches(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache" / "huggingface"
    cache.mkdir(parents=True)
    (cache / "model.bin").touch()
    foreign = tmp_path / "somebody-elses"
    foreign.mkdir()
    monkeypatch.setattr(watchdog, "SshHost", LocalHost)
    monkeypatch.setattr(watchdog, "_ALSO", (str(tmp_path / "cac*"),))
    away = "import os, sys, time; print('a name', flush=True); os.fork() and sys.exit(); os.setsid(); time.sleep(600)"
    host.start("finetune", [sys.executable, "-c", away], {})
    until(lambda: host.status("finetune").state == "exited")
    (left,) = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cwd") if _is(path, tmp_path / "lease")]
    watch(host, soon(), None, CLOCK)
    until(lambda: told(tmp_path / "lease").get("state") == "ended")
    until(lambda: not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text().split()[2])
    assert not cache.exists()
    assert not (tmp_path / "lease" / "steps" / "finetune" / "log").exists()
    assert host.status("finetune").state == "exited"  # how it ended is still told: nobody starts it again
    assert foreign.exists()


def _is(link: Path, folder: Path) -> bool:
    try:
        return link.readlink() == folder
    except OSError:
        return False


def test_switched_off_it_is_not_started(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_WITHOUT", "watchdog")
    watch(host, soon(), None, CLOCK)
    assert host.status(STEP).state == "absent"


# -- clocks -------------------------------------------------------------------------------------------------


class Dated:
    """A provider whose answers carry the time that it has."""

    def __init__(self) -> None:
        self.ahead, self.asked, outer = 0.0, 0, self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.asked += 1
                self.send_response(401)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + outer.ahead)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def dated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dated]:
    made = Dated()
    monkeypatch.setitem(ENDPOINTS, "dated", ("NO_SUCH_URL", f"http://127.0.0.1:{made.server.server_port}"))
    yield made
    made.server.shutdown()
    made.server.server_close()


class BoxClock:
    """How wrong the machine's time of day is. Its boot-time clock stays what it is: libfaketime 0.9.10 moves both."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def off(self, *, hours: float) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(str(hours * 3600))
        part.replace(self._file)


@pytest.fixture
def box_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BoxClock:
    made = BoxClock(tmp_path / "off")
    made.off(hours=0)
    first = "from __future__ import annotations\n"
    off = f"float(open({str(tmp_path / 'off')!r}).read())"
    wrong = f"{first}import time\ntime.time = lambda real=time.time: real() + {off}\n"
    monkeypatch.setattr(watchdog, "_TEXT", watchdog._TEXT.replace(first, wrong, 1))
    return made


@pytest.mark.parametrize(("hours", "told_by"), [(-24, "nobody"), (24, "nobody"), (-24, "the provider")])
def test_a_clock_that_is_a_day_off_or_set_right_meanwhile_neither_ends_nor_saves_a_job(
    host: LocalHost, tmp_path: Path, box_clock: BoxClock, dated: Dated, hours: int, told_by: str
) -> None:
    box_clock.off(hours=hours)
    root = at_work(host, tmp_path)
    watch(host, soon(15), None, CLOCK, "dated" if told_by == "the provider" else "")
    until(lambda: told(root).get("state") == "watching")
    off = told(root)["t"] - time.time()
    assert abs(abs(off) - 86_400) < 60  # the machine does believe it
    if told_by == "the provider":
        until(lambda: dated.asked)
    box_clock.off(hours=0)  # its time service sets it right
    CLOCK.sleep(2.5)
    assert sorted(host.running_steps()) == ["finetune", STEP]
    until(lambda: told(root).get("state") == "ended")
    assert told(root)["why"] == "the deadline"
    assert dated.asked >= (2 if told_by == "the provider" else 0)


def test_a_machine_that_stood_still_ends_by_the_providers_clock(
    host: LocalHost, tmp_path: Path, box_clock: BoxClock, dated: Dated
) -> None:
    """Halted by its host for two hours: its boot-time clock counted none of them, its time of day is set since."""
    root = at_work(host, tmp_path)
    watch(host, soon(3600), None, CLOCK, "dated")
    until(lambda: dated.asked)
    dated.ahead = 7200.0
    box_clock.off(hours=2)
    until(lambda: told(root).get("state") == "ended")
    assert told(root)["why"] == "the deadline, by the provider's clock"


def test_where_no_other_clock_is_known_a_machine_that_stood_still_ends_a_day_late(
    host: LocalHost, tmp_path: Path, box_clock: BoxClock
) -> None:
    root = at_work(host, tmp_path)
    watch(host, soon(3600), None, CLOCK)
    until(lambda: told(root).get("state") == "watching")
    box_clock.off(hours=25)
    CLOCK.sleep(3.0)
    assert told(root)["state"] == "watching"  # a clock that was a day and an hour slow, for all it can tell
    box_clock.off(hours=27)
    until(lambda: told(root).get("state") == "ended")
    assert told(root)["why"] == "the deadline, by its own time of day"
