"""What the batch tests share: the fast ground, a provider that costs money, and a clock that a test can move."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "run"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from whole import Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Twelve jobs over ten short recordings, the scripted provider, a home of its own."""
    return Sweep(tmp_path)
