"""Lines that drop, hang and come back; machines that are restarted or replaced; answers that never arrive."""

import dataclasses
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from real_sshd import Sshd, Wire, at_once

from launcher.hosts import HostKeyChangedError, HostUnreachableError
from launcher.hosts.link import Patience
from launcher.hosts.ssh import SshHost
from tests.patience import until

Connect = Callable[..., SshHost]
MB = 1 << 20
SHORT = Patience(connect_s=15, answer_s=60, stall_s=1, total_s=2, transfer_s=120)
CURT = dataclasses.replace(SHORT, connect_s=1, answer_s=2)  # for one question, to a step that somebody else started
HOPEFUL = dataclasses.replace(CURT, total_s=60)
PAUSE = ["python3", "-c", "import signal; signal.pause()"]


@pytest.fixture
def line(sshd: Sshd, wire: Callable[[Sshd], Wire]) -> Wire:
    return wire(sshd)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.nemo"
    path.write_bytes(os.urandom(8 * MB))
    return path


def test_a_step_runs_on_while_the_line_is_cut(connect: Connect, sshd: Sshd, line: Wire) -> None:
    host = connect(sshd, line.port)
    host.start("train", PAUSE, {})
    line.cut()
    assert host.status("train").state == "running"
    assert line.calls == 2
    host.signal("train", signal.SIGTERM)
    until(lambda: host.status("train").code == 128 + signal.SIGTERM)


def test_a_line_cut_in_an_answer_gives_the_whole_answer(connect: Connect, sshd: Sshd, line: Wire) -> None:
    host = connect(sshd, line.port)
    held = os.urandom(MB)
    host.status("none")
    Path(host.root).mkdir()
    Path(host.path("log")).write_bytes(held)
    line.when("down", line.down + MB // 2, line.cut)
    assert host.read("log") == held
    assert line.calls == 2


def test_a_line_that_hangs_for_seconds_is_waited_out(connect: Connect, sshd: Sshd, line: Wire) -> None:
    connect(sshd).start("train", PAUSE, {})
    host = connect(sshd, line.port, HOPEFUL)
    host.status("train")
    line.hold()
    threading.Timer(3, line.release).start()
    assert host.status("train").state == "running"
    host.signal("train", signal.SIGKILL)


@pytest.mark.parametrize("how", ["refused", "held"])
def test_a_line_that_never_comes_back_is_no_failure_of_the_step(
    connect: Connect, sshd: Sshd, line: Wire, how: str
) -> None:
    direct = connect(sshd)
    direct.start("train", PAUSE, {})
    host = connect(sshd, line.port, CURT)
    if how == "held":
        line.hold()
    else:
        line.refuses = True
    with pytest.raises(HostUnreachableError, match="has not answered for 2 s"):
        host.status("train")
    assert direct.status("train").state == "running"
    direct.signal("train", signal.SIGKILL)


@pytest.mark.parametrize("megabytes", [0, 24])  # more than the line's own buffers take: then sending does not end
def test_a_machine_that_falls_silent_between_two_requests_is_given_up(
    connect: Connect, sshd: Sshd, line: Wire, megabytes: int
) -> None:
    """As one whose power fails. The next request begins on a session that was opened ahead of it."""
    direct = connect(sshd)
    direct.start("train", PAUSE, {})
    host = connect(sshd, line.port, CURT)
    assert host.status("train").state == "running"
    until(lambda: host._link._spare is not None)
    line.hold()
    with pytest.raises(HostUnreachableError, match="has not answered for 2 s"):
        host.start("train", PAUSE, {"LARGE": os.urandom(megabytes * MB // 2).hex()})
    assert direct.running_steps() == ["train"]
    direct.signal("train", signal.SIGKILL)


@pytest.fixture
def withholding(tmp_path: Path) -> tuple[str, Path]:
    """A Python that does what it is asked and, where the flag lies, takes the answer to its grave. It keeps a list
    of its command lines."""
    import sys

    script, flag = tmp_path / "python", tmp_path / "withhold"
    script.write_text(
        f"""#!/bin/sh
printf '%s\\n' "$*" >> {tmp_path}/argv
if [ -e {flag} ]; then rm {flag}; {sys.executable} "$@" > {tmp_path}/withheld; exit 0; fi
exec {sys.executable} "$@"
"""
    )
    script.chmod(0o755)
    return str(script), flag


def test_a_start_whose_answer_is_lost_has_started_once(
    connect: Connect, sshd: Sshd, withholding: tuple[str, Path], tmp_path: Path
) -> None:
    python, flag = withholding
    host = connect(sshd, box_python=python)
    flag.touch()
    host.start("train", ["sh", "-c", f"echo started >> {tmp_path}/starts"], {})
    assert (tmp_path / "withheld").read_text().startswith("answer-")
    until(lambda: host.status("train").code == 0)
    assert (tmp_path / "starts").read_text() == "started\n"


def test_a_signal_whose_answer_is_lost_was_sent_once(
    connect: Connect, sshd: Sshd, withholding: tuple[str, Path]
) -> None:
    body = """
import signal
caught = []
signal.signal(signal.SIGTERM, lambda *_: print("caught", flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""
    python, flag = withholding
    host = connect(sshd, box_python=python)
    host.start("train", ["python3", "-c", body], {})
    until(lambda: host.read("steps/train/log") == b"ready\n")
    flag.touch()
    host.signal("train", signal.SIGTERM)
    until(lambda: host.read("steps/train/log") == b"ready\ncaught\n")
    host.signal("train", signal.SIGTERM)
    until(lambda: host.read("steps/train/log") == b"ready\ncaught\ncaught\n")
    host.signal("train", signal.SIGKILL)


def test_what_was_placed_stays_placed_when_the_answer_is_lost(
    connect: Connect, sshd: Sshd, withholding: tuple[str, Path], model: Path
) -> None:
    python, flag = withholding
    host = connect(sshd, box_python=python)
    host.put(model, "model.nemo")
    ask = host._ask
    host._ask = lambda verb, **fields: (flag.touch() if verb == "place" else None, ask(verb, **fields))[1]
    host.put(model, "model.nemo")
    assert not flag.exists()
    assert Path(host.path("model.nemo")).read_bytes() == model.read_bytes()


def test_no_secret_is_in_a_command_line(
    connect: Connect, sshd: Sshd, withholding: tuple[str, Path], tmp_path: Path
) -> None:
    host = connect(sshd, box_python=withholding[0])
    host.start("train", ["sh", "-c", "test ${#HF_TOKEN} = 9"], {"HF_TOKEN": "hf_secret"})
    until(lambda: host.status("train").code == 0)
    assert "supervise.py" in (tmp_path / "argv").read_text()
    assert "hf_secret" not in (tmp_path / "argv").read_text()


def test_a_cut_upload_goes_on_where_it_was_cut(connect: Connect, sshd: Sshd, line: Wire, model: Path) -> None:
    host = connect(sshd, line.port)
    line.when("up", 7 * MB, line.cut)
    host.put(model, "model.nemo")
    assert Path(host.path("model.nemo")).read_bytes() == model.read_bytes()
    assert (
        line.up < 12 * MB
    )  # 7 MB before the cut, of which some were still on the way; from the start it would be 15
    assert not list(Path(host.path(".host/in")).iterdir())


def test_a_cut_upload_of_a_folder_sends_no_file_twice(
    connect: Connect, sshd: Sshd, line: Wire, tmp_path: Path
) -> None:
    (tmp_path / "bundle").mkdir()
    for number in range(80):
        (tmp_path / "bundle" / f"{number:02}.flac").write_bytes(os.urandom(MB // 10))
    host = connect(sshd, line.port)
    line.when("up", 7 * MB, line.cut)
    host.put(tmp_path / "bundle", "bundle")
    assert len(list(Path(host.path("bundle")).iterdir())) == 80
    assert line.up < 12 * MB


def test_a_cut_download_goes_on_where_it_was_cut(
    connect: Connect, sshd: Sshd, line: Wire, model: Path, tmp_path: Path
) -> None:
    host = connect(sshd, line.port)
    Path(host.root).mkdir()
    Path(host.path("model.nemo")).write_bytes(model.read_bytes())
    line.when("down", 7 * MB, line.cut)
    host.get("model.nemo", tmp_path / "home" / "model.nemo")
    assert (tmp_path / "home" / "model.nemo").read_bytes() == model.read_bytes()
    assert line.down < 12 * MB
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["model.nemo"]


def test_a_file_that_moves_on_while_it_is_fetched_comes_home_as_it_was(
    connect: Connect, sshd: Sshd, line: Wire, model: Path, tmp_path: Path
) -> None:
    host = connect(sshd, line.port)
    Path(host.root).mkdir()
    there = Path(host.path("last.ckpt"))
    there.write_bytes(model.read_bytes())
    ask = line.calls

    def replaced() -> bool:
        return line.calls > ask + 1 and line.down > MB

    line.when("down", 5 * MB, line.cut)
    with at_once(lambda: host.get("last.ckpt", tmp_path / "last.ckpt")):
        until(replaced)
        (there.parent / "next").write_bytes(os.urandom(MB))
        (there.parent / "next").replace(there)
    assert (tmp_path / "last.ckpt").read_bytes() == model.read_bytes()


def test_an_upload_that_was_given_up_is_finished_by_the_next_one_and_unseen_until_then(
    connect: Connect, sshd: Sshd, line: Wire, model: Path
) -> None:
    host = connect(sshd, line.port, SHORT)
    host.status("none")

    def cut_for_good() -> None:
        line.refuses = True
        line.cut()

    line.when("up", 5 * MB, cut_for_good)
    with pytest.raises(HostUnreachableError):
        host.put(model, "model.nemo")
    assert not Path(host.path("model.nemo")).exists()
    line.refuses, before = False, line.up
    connect(sshd, line.port).put(model, "model.nemo")
    assert Path(host.path("model.nemo")).read_bytes() == model.read_bytes()
    assert line.up - before < 6 * MB


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_transfer_over_a_line_that_hangs_for_seconds_ends_well(
    connect: Connect, sshd: Sshd, line: Wire, model: Path, tmp_path: Path, way: str
) -> None:
    host = connect(sshd, line.port, HOPEFUL)
    Path(host.root).mkdir()
    Path(host.path("old")).write_bytes(model.read_bytes())
    transfer = (lambda: host.put(model, "new")) if way == "up" else (lambda: host.get("old", tmp_path / "new"))
    held = threading.Event()
    line.when(way, MB, lambda: (line.hold(), held.set()))
    with at_once(transfer):
        until(held.is_set)
        threading.Timer(3, line.release).start()
    there = Path(host.path("new")) if way == "up" else tmp_path / "new"
    assert there.read_bytes() == model.read_bytes()


def test_a_transfer_over_a_line_that_hangs_for_ever_is_given_up(
    connect: Connect, sshd: Sshd, line: Wire, model: Path
) -> None:
    host = connect(sshd, line.port, SHORT)
    line.when("up", MB, line.hold)
    with pytest.raises(HostUnreachableError):
        host.put(model, "model.nemo")
    assert not Path(host.path("model.nemo")).exists()


def test_sending_again_sends_only_what_changed(connect: Connect, sshd: Sshd, line: Wire, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for number in range(20):
        (tmp_path / "bundle" / f"{number:02}.flac").write_bytes(os.urandom(MB // 10))
    host = connect(sshd, line.port)
    host.put(tmp_path / "bundle", "bundle")
    (tmp_path / "bundle" / "03.flac").write_bytes(os.urandom(MB // 5))
    before = line.up
    host.put(tmp_path / "bundle", "bundle")
    assert line.up - before < MB // 2
    for path in (tmp_path / "bundle").iterdir():
        assert Path(host.path(f"bundle/{path.name}")).read_bytes() == path.read_bytes()


def test_a_restarted_sshd_is_found_again(connect: Connect, new_sshd: Callable[..., Sshd]) -> None:
    server = new_sshd()
    host = connect(server)
    host.start("train", PAUSE, {})
    server.stop()
    with at_once(lambda: host.signal("train", signal.SIGTERM)):
        server.start()
    until(lambda: host.status("train").code == 128 + signal.SIGTERM)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_machine_with_another_host_key_is_not_spoken_to(
    connect: Connect, new_sshd: Callable[..., Sshd], wire: Callable[[Sshd], Wire], model: Path, kind: str
) -> None:
    server = new_sshd()
    line = wire(server)
    host = connect(server, line.port)
    host.status("train")
    server.stop()
    server.new_host_key(kind)
    server.start()
    calls = line.calls
    with pytest.raises(HostKeyChangedError, match=r"was SHA256:\S+, and now shows SHA256:"):
        host.status("train")
    with pytest.raises(HostKeyChangedError):
        connect(server, line.port).put(model, "model.nemo")
    assert line.calls - calls == 2
    assert not Path(host.path("model.nemo")).exists()
