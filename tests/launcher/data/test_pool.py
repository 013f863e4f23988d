"""The pool of workers that convert recordings, left with Ctrl-C at its worst moments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

# Ctrl-C the moment the n-th worker runs, and the pool does not know it yet.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from launcher.data.pool import Task, convert_all

begun = 0

def interrupt(frame, event, arg):
    global begun
    if event == "return":
        begun += 1
        if begun == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGINT)
    return interrupt

def watch(frame, event, arg):
    started = frame.f_code.co_name == "start" and frame.f_code.co_filename.endswith("multiprocessing/process.py")
    return interrupt if started else None

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.settrace(watch)
    try:
        for _ in convert_all([Task(path, folder / "out" / path.name) for path in folder.glob("*.wav")], 2):
            pass
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("nth", [1, 2])
def test_ctrl_c_while_a_worker_is_started_ends_the_import(repo: Path, tmp_path: Path, nth: int) -> None:
    for index in range(6):
        soundfile.write(tmp_path / f"{index}.wav", np.full(16_000, 0.1), 16_000)
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(tmp_path), str(nth)]
    env = {"PYTHONPATH": str(repo)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert ran.returncode == 130, ran.stderr
