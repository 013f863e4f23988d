"""The TDT loss of machines without CUDA."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.nemo
def test_the_cpu_tdt_loss_and_its_gradient_are_those_of_equation_7(recipe_python: Path, repo: Path) -> None:
    script = repo / "tests" / "recipes" / "models" / "loss_check.py"
    environment = os.environ | {"PYTHONPATH": str(repo)}
    done = subprocess.run(
        [str(recipe_python), str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loss"] < 1e-5 and found["gradient"] < 1e-5 and found["padding"] == 0.0
