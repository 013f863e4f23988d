from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# As `python -m launcher`, whose exit code Python decides last; the verb is interrupted inside an exec of text.
MODULE = """
import sys
import launcher.cli, launcher.cli.doctor

def interrupted(*args, **kwargs):
    exec("raise KeyboardInterrupt")

launcher.cli.doctor.command.callback = interrupted
sys.exit(launcher.cli.main())
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_interrupt_that_meets_an_exec_of_text_ends_in_130_like_any_other(
    repo: Path, tmp_path: Path, options: list[str]
) -> None:
    """As when Ctrl-C comes while a dataclass is being made: Python then kills itself, unless it is told."""
    (tmp_path / "as_launcher.py").write_text(MODULE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "as_launcher", "doctor", *options], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{repo}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
