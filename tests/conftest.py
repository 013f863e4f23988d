"""What every test shares: where the recipe environment is, and why a test that needs it may skip."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).resolve().parents[1]


# No test asks a live provider for its prices, whatever keys and tools the machine has: a closed port answers. Tests
# of a source set its variable to a server of their own.
NOWHERE = "http://127.0.0.1:9"
for name in ("VAST_URL", "RUNPOD_API_BASE_URL", "BREV_API_URL", "BREV_PUBLIC_API_URL", "GPUHUNT_CATALOG_URL"):
    os.environ[name] = NOWHERE


# Tests run several at a time, on few cores: two threads of torch's wait for each other spinning, and what takes 35
# seconds of a processor with one thread takes 120 with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Started in the background (`make test &`, `nohup make test`) this process ignores Ctrl-C or a closed terminal, and
# so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Nor does any test see file modes that whoever started it prefers.
os.umask(0o022)


@pytest.fixture(autouse=True)
def _umask_of_ours() -> Iterator[None]:
    """What a command line run in this process made private for itself, the next test's files are not.

    It is set before the test too: a fixture of a whole module, made before this one, may have run a command line.
    """
    os.umask(0o022)
    yield
    os.umask(0o022)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def recipe_python() -> Path:
    """The Python of the recipe environment (NeMo, torch), which `make env` builds."""
    python = Path(os.environ.get("LAUNCHER_RECIPE_PYTHON", REPO / ".venv-recipes" / "bin" / "python"))
    if not python.exists():
        if os.environ.get("CI"):
            pytest.fail(f"no recipe environment at {python}: CI must build it (make env)")
        pytest.skip(f"no recipe environment at {python}: build it with `make env`")
    return python


@pytest.fixture(scope="session")
def tiny_bases(recipe_python: Path, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four untrained bases: tdt.nemo, rnnt.nemo, ctc.nemo, hybrid.nemo (0.3 M weights each)."""
    folder = tmp_path_factory.mktemp("bases")
    corpus = folder / "corpus.txt"
    corpus.write_text("turn on the kitchen lights\nplay some quiet music\nit's a cold winter\n", encoding="utf-8")
    build = [recipe_python, repo / "examples" / "tiny_base" / "build.py", "--kind", "all"]
    command = [str(part) for part in (*build, "--out", folder, "--corpus", corpus)]
    env = {"LAUNCHER_CACHE": str(repo / ".cache")} | os.environ
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


# What CI may skip: a GPU cannot be conjured up, nor another operating system, and NVIDIA's own script is never
# part of this repository. All else it must be able to run.
ALLOWED_IN_CI = re.compile(r"\bgpu\b|\bneeds (macos|windows|NVIDIA's script)\b", re.IGNORECASE)
STRICT = os.environ.get("CI") == "true" and os.geteuid() == 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI as root, a skip that is not allowed is a failure."""
    report = yield
    return _forbid_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole module that skips itself."""
    report = yield
    return _forbid_skip(report)


def _forbid_skip(report):  # type: ignore[no-untyped-def]
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not ALLOWED_IN_CI.search(reason):
            report.outcome = "failed"
            report.longrepr = f"CI may not skip what it can run ({reason})"
    return report


# The files that take minutes, the longest first. They begin first, so that no worker has one to itself at the end.
LONG = (
    "launcher/providers/test_provider_conformance.py",
    "launcher/run/test_rented.py",
    "launcher/run/test_rented_through_skypilot.py",
    "launcher/run/test_rented_batch.py",
    "launcher/providers/test_skypilot.py",
    "launcher/providers/test_brev.py",
    "launcher/run/test_hostile_provider.py",
    "launcher/run/test_laptop_shut.py",
    "launcher/run/test_whole_job.py",
    "launcher/providers/test_two_nodes.py",
    "launcher/sentinel/test_skypilot_server_killed.py",
    "launcher/sentinel/test_rented_sentinel.py",
    "launcher/run/test_ci_cancel.py",
    "launcher/run/test_rented_odds.py",
    "launcher/run/test_secrets.py",
    "launcher/run/test_hostile_names.py",
    "faults/test_quick.py",
    "faults/test_schedules.py",
    "faults/test_moving_on.py",
    "faults/test_every_effect_is_named.py",
    "launcher/batch/test_whole_batch.py",
    "launcher/ledger/test_storm.py",
    "launcher/ledger/test_states_of_money.py",
    "examples/test_rehearse.py",
)  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has a suite of its own; long files first, then those that run NeMo, then the rest in order."""
    slow = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("slow"))}
    left_out = [item for item, variable in slow.items() if not os.environ.get(variable)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    rank = {REPO / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(LONG) + (item.get_closest_marker("nemo") is None)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No process of a run may be left when all tests are over: such as a sentinel, which outlives a great deal."""
    if hasattr(session.config, "workerinput"):
        return
    place = str(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    ends = time.monotonic() + 10
    while (left := _of_runs(place)) and time.monotonic() < ends:
        time.sleep(0.2)
    for process in left:
        with contextlib.suppress(psutil.Error):
            session.config.get_terminal_writer().line(f"\nleft over: {process.pid} {process.info['cmdline']}")
            process.kill()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _of_runs(place: str) -> list[psutil.Process]:
    """The runners and sentinels whose home lies there."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        ours = any(part in ("launcher.runner", "launcher.sentinel", "launcher.sentinel.rescue") for part in line)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE and any(part.startswith(place) for part in line):
            found.append(process)
    return found
