"""`dying_runner.py HOME RUN N`: the real runner, killed with SIGKILL just before its N-th effect on the world.

An effect is anything that changes a file, starts or signals a process, or commits to the ledger: Python's own audit
events name them, so that no point of the runner's life has to be listed here.
"""

from __future__ import annotations

import os
import signal
import sys

EFFECTS = {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.kill",
           "os.killpg", "subprocess.Popen", "shutil.copyfile", "shutil.rmtree", "shutil.copytree"}  # fmt: skip


def main(home: str, run: str, allowed: int) -> int:
    from launcher.runner.__main__ import main as run_it

    die_before(allowed)
    return run_it(home, run)


def die_before(allowed: int) -> None:
    """From now on this process is killed before that many effects."""
    from launcher.ledger.journal import Ledger

    left = allowed

    def effect() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(args[1], str) and bool(set(args[1]) & set("wax+"))
        if left > 0 and (writes or event in EFFECTS):
            effect()

    note = Ledger._note

    def noted(*args: object, **kwargs: object) -> None:  # inside the transaction: what follows is the commit
        if left > 0:
            effect()
        note(*args, **kwargs)  # type: ignore[arg-type]
        if left > 0:
            effect()

    Ledger._note = noted  # type: ignore[assignment,method-assign]
    sys.addaudithook(hook)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
