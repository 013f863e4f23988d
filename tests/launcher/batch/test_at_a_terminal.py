"""A batch as a person has it before them: the table, the typed YES, Ctrl-C; and who is told at the end."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from paid import Terminal
from whole import Sweep, killed_at_the_end

from tests.patience import until

LONG = "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [2000, 3000, 4000]}\n"
SHORT = "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [3, 4]}\n"


def at_a_terminal(sweep: Sweep, columns: int = 100) -> Terminal:
    file = sweep.ground.folder / "sweep.yaml"
    return Terminal(sweep, "batch", file, "--offers", sweep.folder / "offers.json", columns=columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("typed", ["yes\n", "YES please\n", "\n", "\x04"], ids=repr)
def test_anything_but_yes_starts_no_job_and_leaves_no_batch(sweep: Sweep, typed: str) -> None:
    sweep.file("", SHORT)
    terminal = at_a_terminal(sweep)
    terminal.wait_for("Type YES")
    terminal.send(typed)
    assert terminal.end() == 3, terminal.shown
    assert "Nothing was created" in terminal.shown
    assert sweep.runs() == sweep.bill() == sweep.ledger("select * from batches") == []


@pytest.mark.parametrize("changed", ["m.jsonl", "base.yaml"])
def test_a_job_or_data_that_changes_under_the_prompt_is_not_what_was_approved(sweep: Sweep, changed: str) -> None:
    sweep.file("", SHORT)
    terminal = at_a_terminal(sweep)
    terminal.wait_for("Type YES")
    path = sweep.ground.folder / changed
    text = path.read_text()
    phi = text.replace("data: {", "data: {sensitivity: phi, ")
    path.write_text(phi if changed == "base.yaml" else "".join(text.splitlines(keepends=True)[:-1]))
    terminal.send("YES\n")
    assert terminal.end() == 2, terminal.shown
    assert "changed while the plan was being looked at" in " ".join(terminal.shown.split())
    assert sweep.runs() == sweep.bill() == sweep.ledger("select * from batches") == []


@pytest.mark.parametrize("columns", [80, 120])
def test_one_yes_runs_all_jobs_and_ends_in_a_table_that_fits(sweep: Sweep, columns: int) -> None:
    sweep.file("", SHORT)
    terminal = at_a_terminal(sweep, columns)
    terminal.wait_for("Type YES")
    terminal.send("YES\n")
    assert terminal.end() == 0, terminal.shown
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown)
    assert "at most" in shown
    assert "2 of 2 jobs done" in shown
    assert shown.count("WER 44.4% → 22.2%") == 2
    for part in (shown[: shown.index("Type YES")], shown[shown.index("points") - 60 :]):
        assert max(len(line.rstrip("\r").rpartition("\r")[2]) for line in part.split("\n")) <= columns
    (how,) = sweep.ledger("select how from batches")
    assert how == ("typed",)


def test_ctrl_c_leaves_what_runs_running_starts_nothing_new_and_the_same_command_goes_on(sweep: Sweep) -> None:
    sweep.budget(at_once=1)
    sweep.file("", LONG)
    terminal = at_a_terminal(sweep)
    terminal.wait_for("Type YES")
    terminal.send("YES\n")
    terminal.wait_for("started on")
    terminal.send("\x03")
    terminal.wait_for("leave what runs running")
    terminal.send("d\n")
    assert terminal.end() == 0, terminal.shown
    assert "nothing new is started until: launcher batch" in terminal.shown
    until(sweep.created, name="the first machine")  # its runner lives on
    assert len(sweep.created()) == 1
    assert not [line for line in sweep.bill() if line["event"] == "end"]

    again = at_a_terminal(sweep)
    again.wait_for("goes on")
    again.send("\x03")
    again.wait_for("leave what runs running")
    again.send("\x03")
    assert again.end() == 130, again.shown
    assert "Type YES" not in again.shown
    assert len(sweep.created()) == len([line for line in sweep.bill() if line["event"] == "end"]) == 1
    assert sweep.committed() == sweep.billed()


class _Service(BaseHTTPRequestHandler):
    heard: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An apprise address on the loopback, and what it heard."""
    got: list[dict[str, Any]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Service", (_Service,), {"heard": got}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/s3cret", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_who_is_named_is_told_at_the_end_what_came_of_it(
    sweep: Sweep, heard: tuple[str, list[dict[str, Any]]]
) -> None:
    sweep.file("notify: [HERE, NOBODY]\n", SHORT)
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5", HERE=heard[0])
    assert code == 0, err
    (message,) = heard[1]
    assert message["title"].startswith("Batch sweep: 2 of 2 jobs done")
    assert "WER 44.4% → 22.2%" in message["message"]
    assert err.count("NOBODY is not set") == 1
    assert "s3cret" not in err + json.dumps(outcome)


def test_a_service_that_is_not_there_is_said_and_changes_nothing(sweep: Sweep) -> None:
    sweep.file("notify: [HERE]\n", SHORT)
    code, outcome, err = sweep("--confirm", "YES", "--max-cost", "5", HERE="json://127.0.0.1:1/s3cret")
    assert code == 0, err
    assert "the address in HERE could not be reached" in err
    assert "s3cret" not in err + json.dumps(outcome)


def test_a_job_that_runs_already_by_itself_is_met_and_its_cost_is_not_the_batchs(sweep: Sweep) -> None:
    sweep.file("", "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [2000, 3]}\n")
    alone = sweep.ground.job(2000, "resources: {providers: [scripted]}\n", "base.yaml")
    offers = ("--offers", sweep.folder / "offers.json", "--json", "--confirm", "YES", "--max-cost", "5")
    _, run, _ = sweep.ended(sweep.start("run", alone, "--detach", *offers))
    launcher = sweep.batch("--confirm", "YES", "--max-cost", "5")
    with killed_at_the_end(launcher):
        until(lambda: "runs already as" in sweep.said(), name="that it was met")
        os.kill(launcher.pid, signal.SIGTERM)
        code, outcome, err = sweep.ended(launcher)
    assert len(sweep.created()) <= 2
    met = next(each for each in outcome["runs"] if each["run"] == run["run"])
    assert met["job"] == "base max_steps=2000"
    (row,) = sweep.ledger(f"select batch from runs where run = '{run['run']}'")
    assert row == (None,)
    live = [state for name, state, _ in sweep.runs() if name == run["run"]]
    assert live == ["running"], "a run launched by itself is not the batch's to stop"
    code, _, err = sweep.ended(sweep.start("stop", run["run"], "--now", "--json"))
    assert code == 130, err
