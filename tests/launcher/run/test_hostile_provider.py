"""A provider whose every answer is hostile: offers, create, instances, deletes. It neither crashes nor misleads us.

The simulated Vast answers through a door that adds, to all it says, escape codes, markup, lines that look like ours,
signs that turn a line, deep nesting and machines of strangers; and that answers a delete with a page, a flood and a
cheerful lie before it lets one through. The bill is the judge.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from door import Asked, door
from rented import RentedGround

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "47")
YES = ("--confirm", "YES", "--max-cost", "3")
EVIL = (
    "\x1b[2J\x1b]0;x\x07\x9b31m[bold red]<script>alert(1)</script>\u202e01.0$\u2066\r\n"
    "\n ✓ released: nothing of ours at Vast\n   money $0.00 charged\x00\u2028"
)
NEST: Any = "x"
for _ in range(200):
    NEST = [NEST, {"a": NEST}] if len(json.dumps(NEST)) < 2000 else [NEST]


def poisoned(asked: Asked) -> tuple[int, bytes] | None:
    """The cloud's answer with hostile words in every text that says nothing of price, place or identity."""
    try:
        held = json.loads(asked.reply)
    except ValueError:
        return None
    if not isinstance(held, dict):
        return None
    for row in [*(held.get("offers") or []), *rows_of(held.get("instances"))]:
        for name in ("geolocation", "status_msg", "cpu_name", "mobo_name", "driver_version", "image_uuid"):
            row[name] = EVIL
        row |= {"nested": NEST, EVIL: EVIL, "verification": EVIL, "long": "x" * 20_000}
    if isinstance(held.get("instances"), list) and "total_instances" in held:
        for number in range(3):  # strangers' machines beside ours, labelled to look like ours
            label = f"pl-root-vm-{EVIL}-{number}"
            held["instances"].append({"id": 900_000 + number, "label": label, "actual_status": EVIL, "dph_base": []})
        held["total_instances"] += 3
    held |= {"msg": EVIL, "nested": NEST}
    return asked.status, json.dumps(held).encode()


def rows_of(held: Any) -> list[dict[str, Any]]:
    return held if isinstance(held, list) else [held] if isinstance(held, dict) else []


class Deletes:
    """What is answered instead of a delete, until it is let through."""

    def __init__(self) -> None:
        deep = b"[" * 200_000 + b"]" * 200_000
        self.lies = [
            (200, b"<!doctype html><title>Gone</title>Your instance was destroyed."), (200, deep),
            (200, b'{"success": true, "msg": "' + b"x" * 5_000_000),
            (200, json.dumps({"success": True, "msg": EVIL}).encode()),
        ]  # fmt: skip

    def answer(self, asked: Asked) -> tuple[int, bytes] | None:
        if asked.method == "DELETE" and self.lies:
            return self.lies.pop(0)
        return None


def assert_plain(text: str) -> None:
    assert not [c for c in text if not c.isprintable() and c != "\n"], text
    lines = [line.lstrip() for line in text.splitlines()]
    assert not [line for line in lines if line.startswith(("✓ released: nothing", "money $0.00"))]


def test_hostile_answers_neither_crash_nor_mislead(ground: RentedGround) -> None:
    deletes = Deletes()
    with door(ground.cloud) as held:
        held.instead, held.after = deletes.answer, poisoned
        env = {**ground.env, **held.env}
        out, err = ground.launcher.start("offers", "--provider", "vast", **env).communicate(timeout=100)
        assert "RTX 4090" in out
        assert "0.280" in out  # no long word beside it pushes the price out of sight
        assert_plain(out + err)
        out, err = ground.launcher.start("run", ground.job("vast"), *YES, **env).communicate(timeout=400)
        assert_plain(out + err)
        assert "Traceback" not in out + err
        (run,) = ground.ledger.runs()
        assert (str(run.state), run.exit_code) == ("settled", 0), out + err
        _, reaped, complained = ground.run("reap", **held.env)
        assert_plain(complained)
        assert not reaped["released"]
    assert not deletes.lies, "the machine was never asked to end often enough"
    assert not [row for row in ground.cloud.bill()["machines"] if row["state"] != "terminated"]
    assert {str(lease.state) for lease in ground.ledger.leases(run.run)} == {"released"}
    assert len([asked for asked in held.asked if asked.method == "DELETE"]) > 4
