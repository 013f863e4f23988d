"""What the runner may rely on, of this machine and of one over ssh alike."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from launcher.hosts import Host
from launcher.hosts.base import HostError
from tests.patience import until

HOSTILE = ["-rf --help", "$(touch pwned) `touch pwned`;touch pwned 'it's \"quoted\"\nline\t",
           "~Łódź 東京 🎙 cafe\u0301*?[x]back\\slash:%h#", os.fsdecode(b"\xff\xfe")]  # fmt: skip


def python(body: str) -> list[str]:
    return [sys.executable, "-c", body]


def ended(host: Host, step: str) -> int | None:
    until(lambda: host.status(step).state == "exited")
    return host.status(step).code


@pytest.fixture
def box(host: Host) -> Path:
    """The lease's folder as seen from here: both hosts are this machine."""
    return Path(host.path(""))


def test_a_file_goes_there_and_comes_back_the_same(host: Host, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(300_000))
    host.put(tmp_path / "model", "deep/down/model")
    host.get("deep/down/model", tmp_path / "home" / "model")
    assert (tmp_path / "home" / "model").read_bytes() == (tmp_path / "model").read_bytes()
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["model"]


def test_a_folder_goes_there_whole_and_replaces_what_was_there(host: Host, box: Path, tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    (source / "data" / "empty").mkdir(parents=True)
    (source / "data" / "a.wav").write_bytes(b"a")
    os.utime(source / "data" / "a.wav", ns=(10**18, 10**18))
    (source / "old").write_text("old")
    host.put(source, "bundle")
    (source / "old").unlink()
    (source / "data" / "a.wav").write_bytes(b"b")
    os.utime(source / "data" / "a.wav", ns=(10**18, 10**18 + 10**6))  # written in the same second
    (source / "new").write_text("new")
    host.put(source, "bundle")
    found = {p.relative_to(box / "bundle").as_posix() for p in (box / "bundle").rglob("*")}
    assert found == {"data", "data/empty", "data/a.wav", "new"}
    assert (box / "bundle" / "data" / "a.wav").read_bytes() == b"b"


def test_a_file_takes_the_place_of_a_folder_and_the_other_way_round(host: Host, box: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("x")
    (tmp_path / "file").write_text("y")
    host.put(tmp_path / "folder", "it")
    host.put(tmp_path / "file", "it")
    assert (box / "it").read_text() == "y"
    host.put(tmp_path / "folder", "it")
    assert (box / "it" / "x").read_text() == "x"


def test_an_empty_file_and_an_empty_folder_travel(host: Host, box: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").touch()
    (tmp_path / "none").mkdir()
    host.put(tmp_path / "nothing", "nothing")
    host.put(tmp_path / "none", "none")
    host.get("nothing", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""
    assert list((box / "none").iterdir()) == []


def test_what_is_not_there_cannot_be_fetched_and_leaves_nothing_here(host: Host, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        host.get("out/model.nemo", tmp_path / "home" / "model.nemo")
    assert list((tmp_path / "home").iterdir()) == []


def test_what_is_not_here_cannot_be_sent(host: Host, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        host.put(tmp_path / "missing", "there")


def test_fetching_replaces_an_older_file_and_a_leftover_of_another_attempt(host: Host, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new" * 1000)
    host.put(tmp_path / "new", "model")
    (tmp_path / "model").write_bytes(b"old")
    (tmp_path / ".model.part").write_bytes(b"OLD" * 1000)
    stamp = (tmp_path / "new").stat()
    os.utime(tmp_path / ".model.part", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # looks the same, is not
    host.get("model", tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == b"new" * 1000


def test_reading_goes_on_from_an_offset(host: Host, box: Path) -> None:
    box.mkdir(parents=True, exist_ok=True)
    (box / "log").write_bytes(b"0123456789")
    assert host.read("log") == b"0123456789"
    assert host.read("log", 4) == b"456789"
    assert host.read("log", 4, 2) == b"45"
    assert host.read("log", 10) == b""
    assert host.read("log", 99) == b""
    assert host.read("absent") == b""


def test_any_bytes_can_be_read_in_one_go_or_in_pieces(host: Host, box: Path) -> None:
    box.mkdir(parents=True, exist_ok=True)
    held = bytes(range(256)) * 10_000
    (box / "log").write_bytes(held)
    assert host.read("log", 0, 1 << 26) == held
    assert host.read("log", 1_048_000, 1_048_576) == held[1_048_000 : 1_048_000 + 1_048_576]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_only_ever_a_name(host: Host, box: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "from" / name
    source.mkdir(parents=True)
    for each in HOSTILE:
        (source / each).write_bytes(os.fsencode(each))
    host.put(source, name)
    assert sorted(p.name for p in (box / name).iterdir()) == sorted(HOSTILE)
    host.get(f"{name}/{name}", tmp_path / "home" / name)
    assert (tmp_path / "home" / name).read_bytes() == os.fsencode(name)
    assert host.read(f"{name}/{name}") == os.fsencode(name)
    assert sorted(p.name for p in box.iterdir() if p.name != ".host") == [name]
    assert not list(tmp_path.rglob("pwned"))


def test_arguments_and_settings_arrive_as_they_were_given(host: Host, tmp_path: Path) -> None:
    out = tmp_path / "said"
    body = f"import os, sys, json; json.dump([sys.argv[1:], os.environ['GIVEN']], open({str(out)!r}, 'w'))"
    host.start("say", [*python(body), *HOSTILE], {"GIVEN": "".join(HOSTILE)})
    assert ended(host, "say") == 0
    assert json.loads(out.read_text()) == [HOSTILE, "".join(HOSTILE)]


def test_a_step_never_started_is_absent(host: Host) -> None:
    assert host.status("train").state == "absent"
    assert host.running_steps() == []
    host.signal("train", signal.SIGTERM)
    assert host.status("train").state == "absent"


@pytest.mark.parametrize("code", [0, 13])
def test_a_step_ends_with_its_own_code_and_leaves_its_log(host: Host, code: int) -> None:
    host.start("train", python(f"print('said'); raise SystemExit({code})"), {})
    assert ended(host, "train") == code
    assert host.read("steps/train/log") == b"said\n"


def test_a_command_that_cannot_start_ends_as_a_shell_would_say_it(host: Host) -> None:
    host.start("train", ["/no/such/command"], {})
    assert ended(host, "train") == 127
    assert b"/no/such/command" in host.read("steps/train/log")


def test_a_step_runs_in_the_lease_folder_under_the_python_that_the_host_names(host: Host, box: Path) -> None:
    host.start("where", [host.python, "-c", "import os; print(os.getcwd())"], {})
    assert ended(host, "where") == 0
    assert Path(host.read("steps/where/log").decode().strip()).resolve() == box.resolve()


def test_a_running_step_is_not_started_twice(host: Host, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    argv = python(f"open({str(starts)!r}, 'a').write('x'); import signal; signal.pause()")
    host.start("train", argv, {})
    until(starts.exists)
    host.start("train", argv, {})
    assert (host.status("train").state, host.running_steps()) == ("running", ["train"])
    assert starts.read_text() == "x"
    host.signal("train", signal.SIGTERM)
    assert ended(host, "train") == 128 + signal.SIGTERM
    assert host.running_steps() == []


def test_an_ended_step_can_be_started_again(host: Host) -> None:
    for code in (3, 4):
        host.start("train", python(f"raise SystemExit({code})"), {})
        until(lambda code=code: host.status("train").code == code)


def test_a_killed_step_is_lost_and_can_be_started_again(host: Host) -> None:
    host.start("train", python("import signal; signal.pause()"), {})
    host.signal("train", signal.SIGKILL)
    until(lambda: host.status("train").state == "lost")
    host.start("train", python("raise SystemExit(5)"), {})
    assert ended(host, "train") == 5


def test_a_step_may_catch_the_signal_it_is_sent(host: Host) -> None:
    body = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(13))
print("ready", flush=True)
signal.pause()
"""
    host.start("train", python(body), {})
    until(lambda: host.read("steps/train/log") == b"ready\n")
    host.signal("train", signal.SIGTERM)
    assert ended(host, "train") == 13


def test_no_key_of_the_launcher_reaches_a_step(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_secret")
    host.start("look", python("import os; print('RUNPOD_API_KEY' in os.environ, 'PATH' in os.environ)"), {})
    assert ended(host, "look") == 0
    assert host.read("steps/look/log") == b"False True\n"


def test_after_a_wipe_nothing_is_left_and_it_may_be_wiped_again(host: Host, box: Path, tmp_path: Path) -> None:
    (tmp_path / "phi.wav").write_bytes(b"someone's voice")
    host.put(tmp_path / "phi.wav", "data/phi.wav")
    host.start("train", python("pass"), {})
    assert ended(host, "train") == 0
    host.wipe()
    assert not box.exists()
    host.wipe()
    host.put(tmp_path / "phi.wav", "data/phi.wav")
    assert host.read("data/phi.wav") == b"someone's voice"


def test_another_run_begins_on_cleared_ground_and_finds_what_was_sent(host: Host, box: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(b"sound")
    host.put(tmp_path / "clip", "data/clip")
    host.put(tmp_path / "clip", "specs/work.json")
    host.start("work", python("import pathlib; pathlib.Path('out/work').mkdir(parents=True)"), {})
    assert ended(host, "work") == 0
    host.clear(["work", "never"])
    assert host.status("work").state == "absent"
    assert not (box / "out").exists()
    assert not (box / "specs").exists()
    assert host.read("data/clip") == b"sound"
    host.start("work", python("import time; time.sleep(60)"), {})
    with pytest.raises(HostError, match="work still runs"):
        host.clear(["work"])
    host.signal("work", signal.SIGKILL)
    until(lambda: host.running_steps() == [])
