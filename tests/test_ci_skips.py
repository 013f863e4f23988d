"""CI, which is root, may not quietly skip a test that it can run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = {
    "test_mark.py": 'import pytest\n@pytest.mark.skipif(True, reason="needs apt")\ndef test_a(): pass\n',
    "test_call.py": 'import pytest\ndef test_a(): pytest.skip("no recipe environment")\n',
    "test_module.py": 'import pytest\npytest.skip("needs root", allow_module_level=True)\n',
}
ALLOWED = {
    "test_gpu.py": 'import pytest\n@pytest.mark.skipif(True, reason="needs a CUDA GPU")\ndef test_a(): pass\n',
    "test_xfail.py": "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False\n",
}


def run(folder: Path, repo: Path, files: dict[str, str], ci: bool) -> subprocess.CompletedProcess[str]:
    shutil.copy(repo / "tests" / "conftest.py", folder / "conftest.py")
    for name, text in files.items():
        (folder / name).write_text(text)
    environ = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("PYTEST_")}
    environ |= {"CI": "true"} if ci else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, check=False)


@pytest.mark.parametrize("name", SKIPPING)
def test_ci_as_root_fails_on_a_skip_it_could_have_run(name: str, tmp_path: Path, repo: Path) -> None:
    done = run(tmp_path, repo, {name: SKIPPING[name]}, ci=True)
    last = done.stdout.strip().splitlines()[-1]
    if os.geteuid() == 0:
        assert done.returncode != 0
        assert "CI may not skip" in done.stdout
        assert "1 failed" in last or "1 error" in last
    else:
        assert "1 skipped" in last


def test_ci_may_skip_for_want_of_a_gpu_and_a_person_may_skip_anything(tmp_path: Path, repo: Path) -> None:
    allowed = run(tmp_path, repo, ALLOWED, ci=True)
    assert allowed.returncode == 0, allowed.stdout
    assert "1 skipped, 1 xfailed" in allowed.stdout
    by_hand = run(tmp_path, repo, SKIPPING, ci=False)
    assert by_hand.returncode == 0, by_hand.stdout
    assert "4 skipped" in by_hand.stdout
