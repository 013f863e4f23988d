"""Whatever stands in a file or comes from a machine, a person gets words and an exit code of the contract.

Valid job, budgets, offers, batch and manifest files and event streams are changed in one or a few places (a value of
another kind, a key gone, renamed or twice, bytes torn out) and given to the real command line. LAUNCHER_TEST_EXAMPLES
sets how many of each.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.cli import main
from launcher.clock import SystemClock
from launcher.errors import ExitCode
from launcher.estimate.measured import throughput_of
from launcher.events import sound
from launcher.home import Home
from launcher.hosts.local import LocalHost
from launcher.ledger import Ledger
from launcher.runner.mirror import Mirror
from launcher.viewer.state import Progress
from recipes.contract import EVENTS, read_events

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "launcher" / "run"))
from fast import FastGround, make_ground  # noqa: E402  ten real recordings and a base

EXAMPLES = int(os.environ.get("LAUNCHER_TEST_EXAMPLES", "12"))
CODES = {int(code) for code in ExitCode}

JOB: dict[str, Any] = {
    "recipe": "finetune",
    "spec": {"base": "./job.yaml.nemo", "max_steps": 5, "method": "full", "max_duration_s": 20.0},
    "data": {"manifest": "m.jsonl", "val_fraction": 0.2, "seed": 1, "sensitivity": "internal"},
    "gate": {"baseline": "auto", "priority": [], "cycle": 1},
    "budget": "interactive",
    "resources": {"providers": ["local", "runpod"], "gpus": ["L40S"], "nodes": 1, "via": "direct"},
    "on_overrun": "stop",
}
BUDGETS: dict[str, Any] = {
    "default": "interactive", "time_zone": "Europe/Zurich",
    "budgets": {"interactive": {
        "per_run_usd": 5, "per_day_usd": "10", "per_month_usd": 50.0, "max_usd_per_hour": 2.5, "concurrent_runs": 4,
        "providers": ["local", "runpod"], "approval": ["typed", "preapproved"], "trust": {"vast": "secure"},
        "sensitivity": {"phi": ["own"], "internal": ["own", "secure"]}, "max_hours": 3,
    }},
}  # fmt: skip
OFFERS: list[dict[str, Any]] = [
    {"provider": "runpod", "offer_id": "NVIDIA L40S/secure", "gpu": "L40S", "count": 1, "vram_gb": 48,
     "trust": "secure", "usd_per_hour": "0.86", "inet_down_mbps": 900, "region": "US", "reliability": 0.99},
]  # fmt: skip
BATCH: dict[str, Any] = {
    "name": "two", "budget": "interactive", "total_usd": 3,
    "jobs": [{"job": "job.yaml"}, {"job": "job.yaml", "name": "b", "with": {"spec.max_steps": 6}}],
}
ROW: dict[str, Any] = {
    "audio_filepath": "0.wav", "duration": 0.2, "text": "turn on the lights", "term": "lights", "voice_id": "v1",
    "entity_category": "drug", "ipa_source": "override", "noise_level": "clean", "context_type": "dictation",
}  # fmt: skip
EVENT_LINES: list[dict[str, Any]] = [
    {"t": "2026-01-01T00:00:00Z", "kind": "phase", "name": "training"},
    {"t": "2026-01-01T00:00:01Z", "kind": "progress", "step": 1, "total": 5, "loss": 1.5, "metrics": {"val_wer": 0.5},
     "seconds_per_step": 0.1, "averaged_steps": 1, "epoch": 1},
    {"t": "2026-01-01T00:00:01Z", "kind": "throughput", "audio_seconds_per_second": 12.5},
    {"t": "2026-01-01T00:00:01Z", "kind": "checkpoint", "name": "step-1", "bytes": 7},
    {"t": "2026-01-01T00:00:02Z", "kind": "gate", "decision": "tune", "reasons": ["a", "b"], "cached": False},
    {"t": "2026-01-01T00:00:02Z", "kind": "trim", "step": 1, "total": 4, "total_before": 5, "message": "shortened"},
    {"t": "2026-01-01T00:00:02Z", "kind": "lease", "state": "released", "proof": ["x absent"]},
    {"t": "2026-01-01T00:00:02Z", "kind": "question", "message": "?", "choices": ["stop", "trim"]},
    {"t": "2026-01-01T00:00:03Z", "kind": "failure", "code": 11, "message": "no memory"},
]  # fmt: skip

VALUES: list[Any] = [
    None, True, 0, -1, 10**400, 2**63, 1e308, float("nan"), float("-inf"), 1e-320, "", " ", "0", "-1", "nan", "1e999",
    "$(touch x)", "[bold]x[/bold]", "../../etc/passwd", "/dev/zero", "-rf", "a\nb", "\u202egpj.exe", "\x1b[2J", "é中",
    "x" * 5000, [], [[]], [None], ["a", 1, {}], {}, {"a": {"b": [1]}}, {"": None}, "auto", "any", "5:00",
]  # fmt: skip


def places(held: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a structure, as a path of keys."""
    inner = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    return [*([at] if at else []), *(place for key, value in inner for place in places(value, (*at, key)))]


@st.composite
def changed(draw: st.DrawFn, valid: Any) -> Any:
    """A valid structure with one to three places changed."""
    held = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        found = places(held)
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        parent = held
        for part in path:
            parent = parent[part]
        how = draw(st.sampled_from(["value", "value", "value", "gone", "key"]))
        if how == "value":
            parent[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif how == "gone" or not isinstance(parent, dict):
            del parent[key]
        else:
            name = draw(st.sampled_from(["x", "", f"{key}s", str(key).upper()]))
            parent[name] = parent.pop(key)
    return held


@st.composite
def torn(draw: st.DrawFn, text: bytes) -> bytes:
    """Bytes with a piece taken out, or something put in."""
    at = draw(st.integers(0, len(text)))
    until = min(len(text), at + draw(st.integers(0, 20)))
    put = draw(st.binary(max_size=6) | st.sampled_from([b"\x00", b"\xff\xfe", b"{", b"&a *a", b"\t"]))
    return text[:at] + put + text[until:]


def as_yaml(held: Any) -> bytes:
    return yaml.safe_dump(held, allow_unicode=True, sort_keys=False).encode("utf-8", "replace")


def as_lines(rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in (rows if isinstance(rows, list) else [rows]))


def files(valid: Any, write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    """The file of a valid structure, changed as a structure or as bytes."""
    return changed(valid).map(write) | torn(write(valid))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastGround]:
    made = make_ground(tmp_path_factory.mktemp("fuzz") / "ground")
    made.job()
    (made.folder / "offers.json").write_text(json.dumps(OFFERS))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("LAUNCHER_LEDGER", raising=False)
        patched.setenv("LAUNCHER_RECIPE_PYTHON", str(made.python))
        patched.setenv("RUNPOD_API_KEY", "planted-0123456789")  # at an address where nobody is
        yield made


def said(ground: FastGround, *words: object) -> tuple[int, str, str]:
    """A verb in this process: its exit code and what it said, which holds no fault of ours and nothing that acts."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, words), "--home", str(ground.folder / "home")])
    told = out.getvalue() + err.getvalue()
    assert code in CODES, told
    assert "Traceback" not in told
    assert "fault of the launcher" not in told
    assert all(c.isprintable() or c in "\n\u200c\u200d" or c.isspace() for c in told), told
    if "--json" in words:
        json.loads(out.getvalue())
        assert len(out.getvalue().splitlines()) == 1
    return code, out.getvalue(), err.getvalue()


fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_files_that_are_changed_here_are_good_ones(ground: FastGround) -> None:
    """Else every change of them would only be refused for what was wrong before."""
    for name, held in (("job.yaml", JOB), ("budgets.yaml", BUDGETS), ("batch.yaml", BATCH)):
        (ground.folder / name).write_bytes(as_yaml(held))
    code, _, err = said(ground, "plan", ground.folder / "job.yaml", "--offers", ground.folder / "offers.json")
    assert code == 0, err
    assert said(ground, "offers", "--offers", ground.folder / "offers.json")[0] == 0
    code, out, err = said(ground, "batch", ground.folder / "batch.yaml", "--offers", ground.folder / "offers.json")
    assert code == 3, out + err  # planned, and nobody there to say YES
    with contextlib.chdir(ground.folder):
        assert said(ground, "budget", "--json")[0] == 0


@given(text=files(JOB, as_yaml), as_json=st.booleans())
@fuzzed
def test_no_job_file_breaks_a_plan(ground: FastGround, text: bytes, as_json: bool) -> None:
    (ground.folder / "budgets.yaml").write_bytes(as_yaml(BUDGETS))
    (ground.folder / "job.yaml").write_bytes(text)
    words = ["plan", ground.folder / "job.yaml", "--offers", ground.folder / "offers.json"]
    said(ground, *words, *(["--json"] if as_json else []))


@given(text=files(BUDGETS, as_yaml), verb=st.sampled_from(["budget", "plan"]))
@fuzzed
def test_no_budgets_file_breaks_a_verb(ground: FastGround, text: bytes, verb: str) -> None:
    (ground.folder / "job.yaml").write_bytes(as_yaml(JOB))
    (ground.folder / "budgets.yaml").write_bytes(text)
    offers = ["--offers", ground.folder / "offers.json"]
    with contextlib.chdir(ground.folder):
        said(ground, *(["plan", "job.yaml", *offers] if verb == "plan" else ["budget", "--json"]))


@given(text=files(OFFERS, lambda held: json.dumps(held).encode()), verb=st.sampled_from(["offers", "plan"]))
@fuzzed
def test_no_offers_file_breaks_a_verb(ground: FastGround, text: bytes, verb: str) -> None:
    (ground.folder / "job.yaml").write_bytes(as_yaml(JOB))
    (ground.folder / "budgets.yaml").write_bytes(as_yaml(BUDGETS))
    (ground.folder / "fuzzed.json").write_bytes(text)
    words = ["offers"] if verb == "offers" else ["plan", ground.folder / "job.yaml"]
    said(ground, *words, "--offers", ground.folder / "fuzzed.json")


def test_voices_that_are_no_text_are_told_apart(ground: FastGround) -> None:
    rows = [ROW | {"audio_filepath": f"{n}.wav", "voice_id": voice} for n, voice in enumerate(([], {}, 1, "a", [1]))]
    (ground.folder / "fuzzed.jsonl").write_bytes(as_lines(rows))
    (ground.folder / "budgets.yaml").write_bytes(as_yaml(BUDGETS))
    (ground.folder / "job.yaml").write_bytes(as_yaml(JOB | {"data": {"manifest": "fuzzed.jsonl"}}))
    assert said(ground, "plan", ground.folder / "job.yaml", "--offers", ground.folder / "offers.json")[0] != 1


@given(text=files([ROW | {"audio_filepath": f"{n}.wav", "voice_id": f"v{n}"} for n in range(6)], as_lines),
       verb=st.sampled_from(["check", "split", "plan"]))  # fmt: skip
@settings(fuzzed, max_examples=4 * EXAMPLES)
def test_no_manifest_breaks_a_verb(ground: FastGround, text: bytes, verb: str) -> None:
    (ground.folder / "fuzzed.jsonl").write_bytes(text)
    if verb == "plan":
        (ground.folder / "budgets.yaml").write_bytes(as_yaml(BUDGETS))
        (ground.folder / "job.yaml").write_bytes(as_yaml(JOB | {"data": {"manifest": "fuzzed.jsonl"}}))
        said(ground, "plan", ground.folder / "job.yaml", "--offers", ground.folder / "offers.json")
        return
    words = ["--out", ground.folder / "split"] if verb == "split" else ["--json"]
    said(ground, "manifest", verb, ground.folder / "fuzzed.jsonl", *words)


@given(text=files(BATCH, as_yaml))
@settings(fuzzed, max_examples=max(1, EXAMPLES // 2))
def test_no_batch_file_breaks_a_batch(ground: FastGround, text: bytes) -> None:
    (ground.folder / "job.yaml").write_bytes(as_yaml(JOB))
    (ground.folder / "budgets.yaml").write_bytes(as_yaml(BUDGETS))
    (ground.folder / "batch.yaml").write_bytes(text)
    said(ground, "batch", ground.folder / "batch.yaml", "--offers", ground.folder / "offers.json", "--json")


@given(text=files(EVENT_LINES, as_lines), step=st.sampled_from(["finetune", "before"]))
@settings(fuzzed, max_examples=10 * EXAMPLES)
def test_no_event_stream_breaks_who_reads_it(ground: FastGround, tmp_path_factory: pytest.TempPathFactory,
                                              text: bytes, step: str) -> None:  # fmt: skip
    """From the machine, over the mirror, to the viewer's lines, the speed that is remembered and the log."""
    run_dir, box = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("box")
    (box / "out" / step).mkdir(parents=True)
    (box / "out" / step / EVENTS).write_bytes(text)
    mirror = Mirror(run_dir)
    mirror.pull(LocalHost(box, Path(sys.executable), SystemClock()), step, f"out/{step}")
    seen = Progress()
    for _, event in read_events(run_dir / EVENTS):
        seen.fold(event)
        seen.line()
    checkpoint = mirror.checkpoint(step) or {}
    assert isinstance(checkpoint.get("bytes") or 0, int)
    assert mirror.at_step(step) >= 0
    mirror.failure(step, 11)
    Mirror(run_dir)  # a runner that takes over reads what is there
    with contextlib.suppress(AttributeError):  # past the events, of which it is asked here: there is no offer
        throughput_of(run_dir, "r1", None, None, "2026-01-01T00:00:00Z")  # type: ignore[arg-type]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(st.dictionaries(st.sampled_from([*EVENT_LINES[1], "message", "x"]), ANYTHING))
@settings(fuzzed, max_examples=10 * EXAMPLES)
def test_what_is_taken_over_of_an_event_can_be_written_and_counted(event: dict[str, Any]) -> None:
    kept = sound(event)
    assert len(json.dumps(kept, allow_nan=False)) < 10**6
    assert set(kept) <= {*event, "kind"}
    assert kept == sound(kept)


@pytest.mark.parametrize("kind", ["lease", "gate", "state", "question", "aboard", "armed", "wiped", "forecast"])
def test_a_machine_cannot_say_what_is_the_runners_to_say(tmp_path: Path, kind: str) -> None:
    """Such as that it was released; nor begin a line of its own on the terminal."""
    box, run_dir = tmp_path / "box", tmp_path / "run"
    (box / "out" / "finetune").mkdir(parents=True)
    lie = {"kind": kind, "state": "released", "proof": ["now absent"], "message": "a\nreleased: now absent"}
    (box / "out" / "finetune" / EVENTS).write_bytes(as_lines([lie]))
    Mirror(run_dir).pull(LocalHost(box, Path(sys.executable), SystemClock()), "finetune", "out/finetune")
    (event,) = [event for _, event in read_events(run_dir / EVENTS)]
    assert event["kind"] == "note"
    assert Progress().fold(event) == "  a released: now absent"


def test_the_log_of_a_run_with_a_hostile_event_is_words(ground: FastGround) -> None:
    home = Home(ground.folder / "home")
    ledger = Ledger.open(home)
    run, _ = ledger.create_run("fuzz", {}, "d")
    folder = home.run_dir(run.run)
    folder.mkdir(parents=True)
    (folder / EVENTS).write_bytes(as_lines([dict.fromkeys(("t", "kind", "step", "a"), value) for value in VALUES]))
    said(ground, "logs", run.run)
    said(ground, "logs", run.run, "--json")


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"a: &a [*a, *a]\n", b"a: !!python/object/apply:os.system [ls]\n"])
def test_the_command_itself_says_one_line(ground: FastGround, text: bytes) -> None:
    """The same as a process of its own."""
    (ground.folder / "bad.yaml").write_bytes(text)
    words = ["--home", str(ground.folder / "home"), "plan", str(ground.folder / "bad.yaml")]
    argv = [sys.executable, "-m", "launcher", *words]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
