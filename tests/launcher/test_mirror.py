"""Events come home once each, whatever is killed in between."""

import json
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.clock import SystemClock
from launcher.hosts import LocalHost
from launcher.runner.mirror import Mirror
from recipes.contract import EVENTS, EventLog, read_events


def host_in(folder: Path) -> LocalHost:
    return LocalHost(folder / "box", Path(sys.executable), SystemClock())


def test_the_recipes_step_counter_does_not_hide_the_step_of_the_run(tmp_path: Path) -> None:
    host = host_in(tmp_path)
    EventLog(host.root / "out" / "finetune").emit("progress", step=7, total=9, loss=float("nan"))
    Mirror(tmp_path / "run").pull(host, "finetune", "out/finetune")
    (_, event), *rest = read_events(tmp_path / "run" / EVENTS)
    assert not rest
    assert (event["step"], event["at_step"], event["total"], event["loss"]) == ("finetune", 7, 9, None)


def test_how_far_a_new_language_has_come_is_passed_on_as_what_it_is(tmp_path: Path) -> None:
    host = host_in(tmp_path)
    EventLog(host.root / "out" / "finetune").emit("stage", step=7, name="mute", message="so")
    Mirror(tmp_path / "run").pull(host, "finetune", "out/finetune")
    ((_, event),) = read_events(tmp_path / "run" / EVENTS)
    assert (event["kind"], event["name"], event["at_step"]) == ("stage", "mute", 7)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(1, 400), max_size=12))
def test_every_whole_line_is_copied_once_however_the_file_grows_and_the_runner_dies(
    tmp_path_factory: object, tmp_path: Path, cuts: list[int]
) -> None:
    folder = Path(str(tmp_path_factory.mktemp("mirror")))  # type: ignore[attr-defined]
    host = host_in(folder)
    source = host.root / "out" / "s" / EVENTS
    source.parent.mkdir(parents=True)
    whole = "".join(json.dumps({"kind": "note", "message": f"é{n}"}) + "\n" for n in range(20)).encode()
    written = 0
    for cut in [*cuts, len(whole)]:
        written = min(len(whole), written + cut)
        source.write_bytes(whole[:written])
        Mirror(folder / "run").pull(host, "s", "out/s")  # a new Mirror each time: the runner was killed
    said = [event["message"] for _, event in read_events(folder / "run" / EVENTS)]
    assert said == [f"é{n}" for n in range(20)]
