"""A machine that was handed over to a run for which no runner can be started: its sentinel releases it."""

from __future__ import annotations

import os
from pathlib import Path

from whole import Sweep, kill

from tests.patience import until

# The first run's runners start; those of other runs end at once, as where there is no memory for them.
REFUSED = """
import os, sys
if "launcher.runner" in sys.orig_argv:
    run, first = sys.orig_argv[-1], {first!r}
    try:
        with open(first, "x") as file:
            file.write(run)
    except FileExistsError:
        if open(first).read() != run:
            os._exit(3)
"""


def test_it_is_released_where_no_runner_starts_and_the_run_before_is_none_the_worse(
    sweep: Sweep, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "sitecustomize.py").write_text(REFUSED.format(first=str(first)))
    sweep.file("total_usd: 10\npack: true\n", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [3, 4]}\n")
    path = os.pathsep.join([str(tmp_path / "odd"), sweep.env["PYTHONPATH"]])
    launcher = sweep.batch("--confirm", "YES", "--max-cost", "10", PYTHONPATH=path, LAUNCHER_SENTINEL_PAUSES_S="0.2")
    until(lambda: first.exists() and first.read_text(), name="a runner of the first run")
    kill(launcher)  # nobody else is there to see to the second one
    until(lambda: all(state in ("settled", "failed") for _, state, _ in sweep.runs()), name="the end of both runs")
    until(lambda: sorted(line["event"] for line in sweep.bill()) == ["create", "end"], name="the machine's end")
    states = {run: state for run, state, _ in sweep.runs()}
    assert states.pop(first.read_text()) == "settled"
    ((second, state),) = states.items()
    assert state == "failed"
    until(lambda: set(sweep.ledger("select state from leases")) == {("released",)}, name="the proof of it")
    assert len(sweep.ledger(f"select lease from leases where run = '{second}'")) == 1
    assert "no runner could be started" in (sweep.home / "runs" / first.read_text() / "events.jsonl").read_text()
