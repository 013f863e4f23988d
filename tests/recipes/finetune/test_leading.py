"""Processes that train together: one that fails ends them all with its reason, and none is ever left."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from finetune_harness import events, wait_for

from recipes.contract import RecipeExit, RecipeFailure
from recipes.finetune.fitting import Load, Machine, fit, sharing
from recipes.finetune.places import HERE, Place, free_port, interface_of, place_of
from recipes.finetune.plan import make_plan
from recipes.finetune.spec import FinetuneSpec
from recipes.finetune.stream import Stream, StreamBatches
from recipes.models.shape import shape_of

#: Each process does what the word at its rank says; what starts them is the recipe's own.
TOGETHER = """
import os, signal, sys, time
from pathlib import Path
from recipes.finetune.leading import lead
from recipes.finetune.line import AGAIN, Ending, Line
from recipes.finetune.places import place_of
mine, out = Line.mine(), Path(sys.argv[1])
if mine is None:
    sys.exit(lead(place_of("auto", os.environ), out))
rank = int(os.environ["RANK"])
(out / f"pid.{rank}").write_text(str(os.getpid()))
act = sys.argv[2].split(",")[rank]
if act == "again":
    act = "done" if os.environ.get(AGAIN) == '{"batch_size": 2}' else act
elif AGAIN in os.environ:
    act = "done"
if act == "listen":
    signal.signal(signal.SIGTERM, lambda *_: mine.end(Ending("done", 13, "stopped")))
    act = "hang"
if act == "hang":
    (out / f"hangs.{rank}").touch()
    time.sleep(600)
others = [out / f"hangs.{n}" for n, each in enumerate(sys.argv[2].split(",")) if each in ("hang", "listen")]
while AGAIN not in os.environ and not all(path.exists() for path in others):
    time.sleep(0.01)
if act == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if act == "lose":
    os._exit(1)
if act == "again":
    mine.end(Ending("again", 1, "too large", {"batch_size": 2}))
mine.end(Ending("failed", 12, "diverged") if act == "fail" else Ending("done", 0, f"well, says {rank}"))
"""


class Machines:
    """Machines of one job, all of them this one."""

    def __init__(self, out: Path, repo: Path, acts: str, nodes: int = 1) -> None:
        self.out, self.world = out, len(acts.split(","))
        env = os.environ | {"PYTHONPATH": str(repo), "SKYPILOT_NUM_GPUS_PER_NODE": str(self.world // nodes)}
        if nodes > 1:
            ips = "\n".join(f"127.0.0.{node + 1}" for node in range(nodes))
            env |= {"SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NODE_IPS": ips, "MASTER_PORT": str(free_port())}
        command = [sys.executable, "-c", TOGETHER, str(out), acts]
        out.mkdir(exist_ok=True)
        self.processes = [
            subprocess.Popen(command, env=env | {"SKYPILOT_NODE_RANK": str(node)}, stderr=subprocess.PIPE, text=True)
            for node in range(nodes)
        ]

    def ended(self) -> list[tuple[int, str]]:
        """Exit code and last line of each machine."""
        told = [(process.communicate(timeout=60)[1], process.returncode) for process in self.processes]
        return [(code, said.strip().splitlines()[-1]) for said, code in told]

    def left(self) -> list[int]:
        """Processes that still live."""
        pids = [int(path.read_text()) for path in self.out.glob("pid.*")]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def none_is_left(self) -> None:
        """Wait until those whose starter was killed have noticed."""
        waiting = subprocess.Popen(["sleep", "60"], text=True)
        try:
            wait_for(waiting, lambda: self.left() == [])
        finally:
            waiting.kill()
            waiting.wait()


@pytest.fixture
def machines(tmp_path: Path, repo: Path) -> Iterator[object]:
    made: list[Machines] = []

    def start(acts: str, nodes: int = 1) -> Machines:
        made.append(Machines(tmp_path / str(len(made)), repo, acts, nodes))
        return made[-1]

    yield start
    for each in made:
        for process in each.processes:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


@pytest.mark.parametrize(
    ("acts", "code", "line"),
    [
        ("done,done", 0, "well, says 0"),
        ("hang,die", 137, "process 1 of the 2 that train together was killed by SIGKILL"),
        ("die,hang", 137, "process 0 of the 2 that train together was killed by SIGKILL"),
        ("hang,fail", 12, "diverged"),
        ("lose,fail", 12, "diverged"),  # who only lost a peer is not the cause
        ("again,hang", 0, "well, says 0"),
    ],
)
def test_how_one_ends_is_how_all_do(machines, acts: str, code: int, line: str) -> None:  # type: ignore[no-untyped-def]
    one = machines(acts)
    ((found, said),) = one.ended()
    assert found == code and line in said
    assert one.left() == []
    failures = [(event["code"], event["message"]) for event in events(one.out, "failure")]
    assert failures == ([] if code == 0 else [(code, said.removeprefix("finetune: "))])
    if acts.startswith("again"):
        assert [event["message"] for event in events(one.out, "warning")] == ["too large"]


def test_a_signal_reaches_the_first_process_and_who_started_them_takes_them_along(machines) -> None:  # type: ignore[no-untyped-def]
    asked = machines("listen,done")
    wait_for(asked.processes[0], (asked.out / "hangs.0").exists)
    asked.processes[0].send_signal(signal.SIGTERM)
    assert asked.ended() == [(13, "finetune: stopped")] and asked.left() == []

    killed = machines("hang,hang")
    wait_for(killed.processes[0], lambda: all((killed.out / f"hangs.{rank}").exists() for rank in (0, 1)))
    killed.processes[0].kill()
    killed.none_is_left()


def test_a_machine_that_waits_for_the_others_can_be_ended(machines) -> None:  # type: ignore[no-untyped-def]
    two = machines("hang,hang", nodes=2)
    head, guest = two.processes
    guest.kill()
    guest.wait()
    wait_for(head, lambda: Path(f"/proc/{head.pid}/stat").read_text().split()[2] == "S")
    head.terminate()
    assert head.wait(timeout=60) != 0
    two.none_is_left()


@pytest.mark.parametrize(
    ("acts", "codes", "line"),
    [
        ("done,done", (0, 0), "well, says"),
        ("hang,fail", (12, 12), "diverged"),
        ("hang,die", (137, 137), "process 1 of the 2 that train together was killed by SIGKILL"),
        ("die,hang", (137, 137), "process 0 of the 2 that train together was killed by SIGKILL"),
        ("hang,again", (0, 0), "well, says"),
    ],
)
def test_what_fails_on_one_machine_ends_the_others(machines, acts: str, codes: tuple[int, int], line: str) -> None:  # type: ignore[no-untyped-def]
    two = machines(acts, nodes=2)
    ended = two.ended()
    assert tuple(code for code, _ in ended) == codes
    assert all(line in said for _, said in ended)
    assert two.left() == []


def test_a_machine_that_is_gone_ends_the_others(machines) -> None:  # type: ignore[no-untyped-def]
    for gone in (0, 1):
        two = machines("hang,hang", nodes=2)
        wait_for(two.processes[0], lambda two=two: all((two.out / f"hangs.{rank}").exists() for rank in (0, 1)))
        two.processes[gone].kill()
        two.processes[gone].wait()
        _, said = two.processes[1 - gone].communicate(timeout=60)
        assert two.processes[1 - gone].returncode == 1
        assert "is gone" in said
        two.none_is_left()


# --- who trains where -------------------------------------------------------------------------------------


def test_the_spec_and_skypilot_say_how_many_and_nothing_else_does() -> None:
    sky = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2",
           "SKYPILOT_NUM_GPUS_PER_NODE": "4"}  # fmt: skip
    assert place_of("auto", {}) == Place() and place_of("auto", {}).world == 1
    assert place_of(2, {}).world == 2
    assert place_of("auto", sky) == Place(4, 1, 2, ("10.0.0.1", "10.0.0.2")) and not place_of("auto", sky).is_head
    assert place_of(2, sky).world == 4
    assert place_of("auto", {"SKYPILOT_NUM_GPUS_PER_NODE": "0"}).world == 1  # a machine without a GPU
    wrongs = (("SKYPILOT_NODE_IPS", "10.0.0.1"), ("SKYPILOT_NODE_RANK", "2"), ("SKYPILOT_NUM_NODES", "two"))
    for name, wrong in wrongs:
        with pytest.raises(RecipeFailure, match=name) as refused:
            place_of("auto", sky | {name: wrong})
        assert refused.value.code == RecipeExit.BAD_INPUT
    assert interface_of(HERE) == "lo" and interface_of("203.0.113.1") is None


def test_devices_take_every_pass_apart_and_every_row_goes_to_exactly_one() -> None:
    chance = random.Random(5)
    for _ in range(50):
        devices, batch, target = chance.randint(1, 5), chance.randint(1, 4), chance.randint(1, 30)
        stream = Stream(target, 0, 0, chance.randint(0, 9))
        first, count = chance.randint(0, 40), chance.randint(1, 20)
        whole = list(StreamBatches(stream, first, batch * devices, count))
        parts = [list(StreamBatches(stream, first, batch, count, rank=r, devices=devices)) for r in range(devices)]
        assert [list(itertools.chain(*each)) for each in zip(*parts, strict=True)] == whole


def test_a_step_is_the_same_rows_on_any_number_of_devices() -> None:
    spec = FinetuneSpec(train_manifest="t", validation_manifest="v")
    shape, load = shape_of("nvidia/parakeet-tdt-0.6b-v2"), Load(600, 19.0, 90)
    for devices in (1, 2, 4, 8, 16):
        made = fit(shape, spec, load, Machine(24.0, half=True, on_gpu=True, devices=devices))
        assert made.rows_per_step == 16 and made.fits
        plan = make_plan(spec, epoch_rows=600, train_hours=1.0, batch_size=made.batch_size, precision="32",
                         accumulate=made.accumulate, devices=devices)  # fmt: skip
        assert plan.rows_per_step == 16 and plan.total_steps == 375
        smaller = plan.smaller()
        assert smaller is None or smaller.rows_per_step == 16
    uneven = fit(shape, spec, load, Machine(24.0, half=True, on_gpu=True, devices=3))
    assert "3 devices cannot share the 16 rows of a step" in uneven.why_not
    assert [sharing(16, devices) for devices in (1, 3, 5, 8, 12)] == [1, 2, 4, 8, 8]
    assert [sharing(16, 4, nodes) for nodes in (2, 3)] == [4, 0]
    three = fit(shape, spec, load, Machine(24.0, half=True, on_gpu=True, devices=3, nodes=3))
    assert three.rows_per_step == 18  # several machines are the job's own wish: auto keeps to their number
