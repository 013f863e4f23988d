"""What every test shares: where the recipe environment is, and why a test that needs it may skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def recipe_python() -> Path:
    """The Python of the recipe environment (NeMo, torch), which `make env` builds."""
    python = Path(os.environ.get("LAUNCHER_RECIPE_PYTHON", REPO / ".venv-recipes" / "bin" / "python"))
    if not python.exists():
        if os.environ.get("CI"):
            pytest.fail(f"no recipe environment at {python}: CI must build it (make env)")
        pytest.skip(f"no recipe environment at {python}: build it with `make env`")
    return python
