"""A dozen deaths, of those that could leave a machine behind; `make faults` plays all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.cases import Case
from tests.faults.field import Field
from tests.faults.play import Result, play

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DEADLINE_S = 45.0  # all of them die within seconds of the renting
#: (provider, failpoint, who acts, the layer that must have made the rescue)
DEATHS = (
    ("runpod", "provider.create.before:1", "resume", "none"),
    ("runpod", "provider.create.after:1", "resume", "L0"),  # rented, and our ledger does not know it
    ("runpod", "provider.destroy.before:1", "resume", "L0"),
    ("vast", "provider.create.after:1", "resume", "L0"),
    ("vast", "artifact.place.after:1", "resume", "L0"),
    ("runpod", "provider.create.after:1", "reaper", "L2"),
    ("vast", "provider.arm.after:1", "reaper", "L2"),
    ("runpod", "provider.arm.after:1", "watchdog", "L3"),
    ("vast", "provider.arm.after:1", "watchdog", "L3"),
    ("brev", "provider.arm.after:1", "watchdog", "L2"),  # nothing at Brev lets a machine end itself
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Result]]:
    """All of them at once: most of a case is waiting."""
    field = Field(tmp_path_factory.mktemp("faults"))
    try:
        with ThreadPoolExecutor(len(DEATHS)) as pool:
            played = list(pool.map(lambda death: play(field, case_of(death), DEADLINE_S), DEATHS))
        yield {result.case.key: result for result in played}
    finally:
        field.close()


def case_of(death: tuple[str, str, str, str]) -> Case:
    provider, point, rescue, _ = death
    return Case(provider, "evaluate", "runner" if rescue == "resume" else "both", point, rescue)  # type: ignore[arg-type]


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: " ".join(death[:3]))
def test_a_death_leaves_no_machine_and_no_charge_above_the_ceiling(
    results: dict[str, Result], death: tuple[str, str, str, str]
) -> None:
    result = results[case_of(death).key]
    assert result.reached
    assert result.faults == []
    assert result.rescued_by == death[3]
