"""A run does nothing to the world outside of a named effect: by the kernel's word, over a whole rented run.

`launcher run` itself plans, splits and reserves before there is a machine; what could bill begins with the runner,
which is what is traced here. Its children (ssh, rsync, brev) are part of the effect that starts them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.field import REPO, Field
from tests.faults.tracing import STRACE, Act, outside_of_effects, trace

pytestmark = [
    pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(STRACE is None, reason="needs strace"),
]  # fmt: skip
PROVIDERS = ("runpod", "vast", "brev") if os.environ.get("LAUNCHER_FAULTS") == "all" else ("runpod",)

#: What may happen outside of an effect, and why.
ALLOWED = {
    r"/ledger\.sqlite(-wal|-shm)?$": "SQLite opens its files to read, and the last reader removes its log's index;"
                                     " what is written there passes ledger.write",
    r"^/dev/(null|tty)$": "nothing is kept there",
}  # fmt: skip

STRAY = """
import os, subprocess, sys, threading
from pathlib import Path
from launcher.failpoints import effect
with effect("named"):
    Path("named").write_text("")
    thread = threading.Thread(target=lambda: Path("by-a-thread").write_text(""))
    thread.start(); thread.join()
    subprocess.run(["true"])
Path("stray").write_text("")
thread = threading.Thread(target=lambda: os.rename("stray", "strayed"))
thread.start(); thread.join()
subprocess.run(["true"])
os.kill(os.getpid(), 0)
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    field = Field(tmp_path_factory.mktemp("faults"))
    yield field
    field.close()


def test_what_is_not_named_is_seen(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    code, acts = trace([sys.executable, "-c", STRAY], env, tmp_path / "trace", tmp_path)
    assert code == 0
    told = {(act.call, Path(act.what).name) for act in acts if not act.effect}
    assert {("openat", "stray"), ("rename", "strayed"), ("start", "a process")} <= told
    assert [act for act in acts if act.call == "kill" and not act.effect]
    named = {(act.call, Path(act.what).name) for act in acts if act.effect == "named"}
    assert named == {("openat", "named"), ("openat", "by-a-thread"), ("start", "a process")}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_effect_of_a_whole_run_has_a_failpoint(ground: Field, provider: str, tmp_path: Path) -> None:
    copy = ground.copy(provider)
    command = [sys.executable, "-m", "launcher.runner", str(copy.root), copy.run]
    code, acts = trace(command, {**ground.env, "LAUNCHER_HOME": str(copy.root)}, tmp_path, copy.root.parent)
    assert (code, str(copy.ledger.run(copy.run).state), copy.alive()) == (0, "settled", [])
    assert not outside_of_effects(acts, ALLOWED)
    assert_all_was_seen(acts, provider)


def assert_all_was_seen(acts: list[Act], provider: str) -> None:
    """The trace is of the run that we mean: files, requests, transfers and the ledger are all in it."""
    calls = {(act.call, act.effect) for act in acts}
    assert {("openat", "keys.make"), ("rename", "artifact.place"), ("start", "host.rsync"),
            ("sendto", "host.request"), ("connect", "host.knock")} <= calls  # fmt: skip
    asked = "start" if provider == "brev" else "connect"
    assert sum(act.call == asked and act.effect == "provider.request" for act in acts) >= 10
