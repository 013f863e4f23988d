"""A runner that dies between two machines: the next one knows what the first has cost before it rents another."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from tests.faults.field import Copy, Field

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


#: One at each provider: a fault strikes a provider, and so both can be played at once.
DEATHS = {"vast": "provider.destroy.before", "runpod": "provider.charged.before"}


def move_on(ground: Field, provider: str, point: str) -> tuple[list[str], Copy]:
    """A run whose first machine is dearer than approved, and whose runner dies while it leaves that: its journal."""
    copy = ground.copy(provider, "evaluate")
    ground.cloud.fault("price_change", provider=provider, factor=2.0)
    env = {"LAUNCHER_FAILPOINT": f"runner@{point}", "LAUNCHER_WITHOUT": "sentinel"}
    died = copy.program("launcher.runner", str(copy.root), copy.run, **env)
    _, said = died.communicate()
    assert died.returncode == -signal.SIGKILL, said
    code, outcome, said = copy.verb("resume", copy.run, LAUNCHER_WITHOUT="sentinel")
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, said)
    return [event["kind"] for event in copy.ledger.events(copy.run)], copy


def test_a_runner_that_dies_while_it_leaves_a_machine_charges_it_before_the_next_is_rented(tmp_path: Path) -> None:
    """The first machine is dearer than approved: it is released at once, and another is tried."""
    ground = Field(tmp_path)
    try:
        with ThreadPoolExecutor(len(DEATHS)) as pool:
            played = [pool.submit(move_on, ground, *death) for death in DEATHS.items()]
            for kinds, copy in [each.result() for each in played]:
                intended = [number for number, kind in enumerate(kinds) if kind == "lease.intended"]
                assert len(intended) == 2, copy.provider
                assert kinds.index("charged") < intended[1], copy.provider
                assert copy.alive() == []
                assert Decimal(0) < copy.billed() <= copy.ceiling
                ground.leave(copy)
    finally:
        ground.close()
