"""The local host with real processes: what a killed runner leaves behind can be found, followed and ended."""

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from launcher.clock import SystemClock
from launcher.hosts import LocalHost
from recipes import supervise
from tests.patience import until


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    return LocalHost(tmp_path / "box", Path(sys.executable), SystemClock())


def script(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "job.py"
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return [sys.executable, str(path)]


def test_a_step_never_started_is_absent(host: LocalHost) -> None:
    assert host.status("train").state == "absent"


def test_the_exit_code_outlives_the_starter(host: LocalHost, tmp_path: Path) -> None:
    host.start("train", script(tmp_path, "raise SystemExit(13)"), {})
    until(lambda: host.status("train").state == "exited")
    assert LocalHost(host.root, Path(sys.executable), SystemClock()).status("train").code == 13


def test_a_running_step_is_not_started_twice(host: LocalHost, tmp_path: Path) -> None:
    log = tmp_path / "starts"
    argv = script(tmp_path, f"open({str(log)!r}, 'a').write('x'); import signal; signal.pause()")
    host.start("train", argv, {})
    until(log.exists)
    host.start("train", argv, {})
    assert host.status("train").state == "running"
    assert log.read_text() == "x"
    host.signal("train", signal.SIGKILL)
    until(lambda: host.status("train").state != "running")


def test_a_killed_step_is_lost_and_can_be_started_again(host: LocalHost, tmp_path: Path) -> None:
    argv = script(tmp_path, "import signal; signal.pause()")
    host.start("train", argv, {})
    alive = supervise.read_json(host.root / "steps" / "train" / "alive.json")
    until(lambda: supervise.read_json(host.root / "steps" / "train" / "alive.json") is not None)
    alive = supervise.read_json(host.root / "steps" / "train" / "alive.json")
    assert alive is not None
    os.killpg(alive["pid"], signal.SIGKILL)  # the supervisor and its child, as a power cut would
    until(lambda: host.status("train").state == "lost")
    host.start("train", script(tmp_path, "raise SystemExit(0)"), {})
    until(lambda: host.status("train").state == "exited")
    assert host.status("train").code == 0


def test_a_child_whose_supervisor_died_still_counts_as_running(host: LocalHost, tmp_path: Path) -> None:
    host.start("train", script(tmp_path, "import signal; signal.pause()"), {})
    until(lambda: supervise.read_json(host.root / "steps" / "train" / "alive.json") is not None)
    alive = supervise.read_json(host.root / "steps" / "train" / "alive.json")
    assert alive is not None
    os.kill(alive["pid"], signal.SIGKILL)
    assert host.status("train").state == "running"
    os.kill(alive["child"], signal.SIGKILL)
    until(lambda: host.status("train").state == "lost")


def test_a_signal_reaches_the_command_itself(host: LocalHost, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    body = f"""
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(13))
        open({str(ready)!r}, "w").close()
        signal.pause()
    """
    host.start("train", script(tmp_path, body), {})
    until(ready.exists)
    host.signal("train", signal.SIGTERM)
    until(lambda: host.status("train").state == "exited")
    assert host.status("train").code == 13


def test_a_recipe_sees_no_key_of_the_launchers_environment(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "planted-secret")
    seen = tmp_path / "seen"
    host.start("train", script(tmp_path, f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))"), {})
    until(lambda: host.status("train").state == "exited")
    assert "planted-secret" not in seen.read_text()
