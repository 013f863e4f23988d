"""`dying_launcher.py N ARGS...`: the real command line, killed with SIGKILL before its N-th effect."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "run"))

from dying_runner import die_before

from launcher.cli import main

if __name__ == "__main__":
    die_before(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
