"""What the batch tests share: the fast ground, a provider that costs money, and a clock that a test can move."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "run"), str(HERE.parent / "ledger")]

from whole import Sweep  # noqa: E402


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Twelve jobs over ten short recordings, the scripted provider, a home of its own."""
    return Sweep(tmp_path)
