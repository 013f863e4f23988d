"""What runs on the rented machine when the launcher asks something of it: one request, one answer, then it ends.

The text of this file and of recipes/supervise.py travels with each request (a few KB), so that nothing has to be
installed first and no old version can be left behind. The request comes on standard input as JSON: no name, no
setting and no secret is ever part of a command line or seen by a shell. Standard library only, Python 3.8 or newer.

ROOT/.host/in/KEY/whole    what is being sent, before it has its name;  basis: what it replaces
ROOT/.host/out/KEY/whole   a link to what is being fetched
ROOT/steps/watchdog/heard  touched by each request: its watchdog hears that somebody of ours is there
ROOT/steps/NAME/           a step, as recipes/supervise.py keeps it; asked.json: the last requests, so that one that
                           is repeated because its answer was lost is not done twice
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal as signals
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recipes import supervise

Ask = dict[str, Any]


def serve(ask: Ask, supervisor: str) -> dict[str, Any]:
    """Do what is asked. What the machine says no to comes back as `error`: missing, or os with the reason."""
    verbs = {"read": read, "start": start, "status": status, "signal": signal, "running": running, "wipe": wipe,
             "clear": clear, "expect": expect, "prepare": prepare, "place": place, "lend": lend,
             "returned": returned}  # fmt: skip
    with suppress(OSError):  # the machine's watchdog: somebody of ours is there
        (Path(ask["root"]) / "steps" / "watchdog" / "heard").touch()
    try:
        return verbs[ask["verb"]](Path(ask["root"]), {**ask, "supervisor": supervisor})
    except FileNotFoundError as error:
        return {"error": "missing", "message": str(error)}
    except OSError as error:
        return {"error": "os", "message": str(error), "errno": error.errno}


def read(root: Path, ask: Ask) -> dict[str, Any]:
    """Bytes of a file from an offset."""
    try:
        with (root / ask["path"]).open("rb") as file:
            file.seek(ask["offset"])
            return {"data": base64.b64encode(file.read(ask["limit"])).decode()}
    except FileNotFoundError:
        return {"data": ""}


def start(root: Path, ask: Ask) -> dict[str, Any]:
    """Start a command detached under the supervisor; a repeated request starts nothing."""
    step_dir = _step_dir(root, ask["step"])
    with _asked(step_dir) as asked:
        state = supervise.status(step_dir)[0]
        if state == "running" or (state == "exited" and asked.get("start") == ask["token"]):
            return {}
        (step_dir / "exit.json").unlink(missing_ok=True)  # an earlier attempt's end is not this one's
        _note(step_dir, {**asked, "start": ask["token"]})  # before it starts: it may end before we can say so
        script = _supervisor(root, ask["supervisor"])
        env = {name: os.environ[name] for name in ask["passed"] if name in os.environ}
        process = subprocess.Popen(
            [ask["python"], "-I", str(script), str(step_dir), "--", *ask["argv"]],
            cwd=root, env={**env, **ask["env"]}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        alive = step_dir / "alive.json"
        while process.poll() is None and (supervise.read_json(alive) or {}).get("pid") != process.pid:
            time.sleep(0.01)  # until it can be asked after, and be sent a signal
    return {}


def status(root: Path, ask: Ask) -> dict[str, Any]:
    """How a step does."""
    state, code = supervise.status(_step_dir(root, ask["step"]))
    return {"state": state, "code": code}


def signal(root: Path, ask: Ask) -> dict[str, Any]:
    """Send a signal to a step's command, if it runs; a repeated request sends none."""
    step_dir = _step_dir(root, ask["step"])
    if step_dir.is_dir():
        with _asked(step_dir) as asked:
            if asked.get("signal") != ask["token"]:
                supervise.signal_step(step_dir, ask["signum"])
                _note(step_dir, {**asked, "signal": ask["token"]})
    return {}


def running(root: Path, _ask: Ask) -> dict[str, Any]:
    """The steps that still hold their lock."""
    folder = root / "steps"
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    return {"steps": [name for name in names if supervise.status(folder / name)[0] == "running"]}


def clear(root: Path, ask: Ask) -> dict[str, Any]:
    """Remove steps that are over, what they made and their specs."""
    held = [name for name in ask["steps"] if supervise.status(_step_dir(root, name))[0] == "running"]
    if held:
        raise OSError(f"{', '.join(held)} still runs here")
    for path in (*(_step_dir(root, name) for name in ask["steps"]), root / "out", root / "specs"):
        _remove(path)
    return {}


def expect(root: Path, ask: Ask) -> dict[str, Any]:
    """Make ready for a step that somebody else starts here, with `.host/supervise.py`: as if it never had run."""
    step_dir = _step_dir(root, ask["step"])
    if supervise.status(step_dir)[0] == "running":
        raise OSError(f"{ask['step']} still runs here")
    step_dir.mkdir(parents=True, exist_ok=True)
    for name in ("lock", "alive.json", "exit.json"):
        (step_dir / name).unlink(missing_ok=True)
    _supervisor(root, ask["supervisor"])
    return {}


def wipe(root: Path, _ask: Ask) -> dict[str, Any]:
    """Remove the lease's folder."""
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        shutil.rmtree(root)  # says why not
    if root.parent.is_dir():
        _flush(root.parent)
    return {}


def prepare(root: Path, ask: Ask) -> dict[str, Any]:
    """Make room for what is to be sent, and say how much of it is there from a transfer that was cut."""
    held, target = root / ".host" / "in" / ask["key"], root / ask["to"]
    _private(root)
    _private(held)
    _end_receivers(str(held))
    whole, basis = held / "whole", held / "basis"
    if whole.exists() and whole.is_dir() != ask["folder"]:
        _remove(whole)
    for path in whole.rglob("*") if whole.is_dir() else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            path.unlink()  # it shares its bytes with what it replaces: linked again below, never written into
    _remove(basis)
    if ask["folder"] and target.is_dir():
        basis.symlink_to(target)
    elif not ask["folder"] and target.is_file():
        basis.mkdir()
        with suppress(OSError):
            os.link(os.path.realpath(target), basis / "whole")
    return {"rsync": shutil.which("rsync"), "basis": basis.exists(), "bytes": _bytes(whole)}


def place(root: Path, ask: Ask) -> dict[str, Any]:
    """Give what was sent its name, all at once."""
    held, target = root / ".host" / "in" / ask["key"], root / ask["to"]
    whole = held / "whole"
    if not os.path.lexists(whole):
        if os.path.lexists(target):
            return {}  # done before; the answer was lost
        raise OSError(f"{whole} is gone")
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target) and (whole.is_dir() or target.is_dir()):
        _remove(held / "old")
        target.rename(held / "old")
    whole.replace(target)
    shutil.rmtree(held, ignore_errors=True)
    return {}


def lend(root: Path, ask: Ask) -> dict[str, Any]:
    """Hold a file under a plain name while it is fetched: it stays what it is even when its name moves on."""
    source, held = Path(os.path.realpath(root / ask["path"])), root / ".host" / "out" / ask["key"]
    if not source.is_file():
        if source.exists():
            raise IsADirectoryError(f"{source} is not a file")
        raise FileNotFoundError(str(source))
    _remove(held)
    _private(held)
    try:
        os.link(source, held / "whole")
    except OSError:  # another disk, or another's file
        (held / "whole").symlink_to(source)
    return {"rsync": shutil.which("rsync"), "bytes": source.stat().st_size}


def returned(root: Path, ask: Ask) -> dict[str, Any]:
    """What was lent is home."""
    _remove(root / ".host" / "out" / ask["key"])
    return {}


@contextmanager
def _asked(step_dir: Path) -> Iterator[Ask]:
    """The last requests that were done for a step; two requests at once wait for each other."""
    step_dir.mkdir(parents=True, exist_ok=True)
    with (step_dir / "asked.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield supervise.read_json(step_dir / "asked.json") or {}


def _supervisor(root: Path, text: str) -> Path:
    """The supervisor's script on this machine."""
    script = root / ".host" / "supervise.py"
    _private(script.parent)
    part = script.with_name(f".supervise.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(script)
    return script


def _note(step_dir: Path, asked: Ask) -> None:
    part = step_dir / f".asked.{os.getpid()}"
    part.write_text(json.dumps(asked), encoding="utf-8")
    part.replace(step_dir / "asked.json")


def _end_receivers(held: str) -> None:
    """End the far ends of transfers that were cut: they would write beside the one that goes on."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            if Path(os.fsdecode(argv[0])).name == "rsync" and any(w.startswith(os.fsencode(held)) for w in argv):
                os.kill(int(entry.name), signals.SIGKILL)


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    return path.stat().st_size if path.is_file() else 0


def _flush(folder: Path) -> None:
    """Have the disk told what was removed here; os.sync would wait for all that others write, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _step_dir(root: Path, step: str) -> Path:
    return root / "steps" / step
