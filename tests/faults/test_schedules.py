"""Random schedules, a few of them: `make faults` plays two hundred (schedules.py)."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.field import Field
from tests.faults.schedules import play

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_no_schedule_leaves_a_machine_or_charges_more_than_was_approved(tmp_path: Path) -> None:
    field, rows = Field(tmp_path), list[dict[str, Any]]()
    try:
        play(field, random.SystemRandom().randrange(10**6), rows.append)
    finally:
        field.close()
    assert len(rows) == 1
    assert [row for row in rows if row["faults"]] == []
