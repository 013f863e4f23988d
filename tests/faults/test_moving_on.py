"""A runner that dies between two machines: the next one knows what the first has cost before it rents another."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.faults.field import Field

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    field = Field(tmp_path_factory.mktemp("faults"))
    yield field
    field.close()


@pytest.mark.parametrize("point", ["provider.destroy.before", "provider.charged.before"])
def test_a_runner_that_dies_while_it_leaves_a_machine_charges_it_before_the_next_is_rented(
    ground: Field, point: str
) -> None:
    """The first machine is dearer than approved: it is released at once, and another is tried."""
    copy = ground.copy("vast", "evaluate")
    ground.cloud.fault("price_change", provider="vast", factor=2.0)
    died = copy.program(
        "launcher.runner", str(copy.root), copy.run, LAUNCHER_FAILPOINT=f"runner@{point}", LAUNCHER_WITHOUT="sentinel"
    )
    _, said = died.communicate()
    assert died.returncode == -signal.SIGKILL, said
    code, outcome, said = copy.verb("resume", copy.run, LAUNCHER_WITHOUT="sentinel")
    assert (code, outcome.get("state")) == (0, "settled"), (outcome, said)
    kinds = [event["kind"] for event in copy.ledger.events(copy.run)]
    intended = [number for number, kind in enumerate(kinds) if kind == "lease.intended"]
    assert len(intended) == 2
    assert kinds.index("charged") < intended[1]
    assert copy.alive() == []
    assert Decimal(0) < copy.billed() <= copy.ceiling
    ground.leave(copy)
