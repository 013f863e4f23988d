"""A disk without room, told from every other error: what was whole before the write that failed is whole still."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from recipes.contract import RESULT, EventLog, RecipeExit, RecipeFailure, write_json

FULL = (errno.ENOSPC, errno.EDQUOT)
PROBE_BYTES = 1 << 20
WORK = ".work"  # of OUT: scratch files, gone when a run is done
#: Kept there for the run's last words, which would find no room otherwise.
RESERVE, RESERVE_BYTES = "reserve", 1 << 18


def full_disk(error: BaseException, folder: Path) -> RecipeFailure | None:
    """What a recipe ends with when an error came of a disk (or a quota) that is full; None when it did not."""
    if not _says_so(error) and not (_may_be(error) and _takes_no_more(folder)):
        return None
    usage = shutil.disk_usage(folder)
    return RecipeFailure(
        RecipeExit.DISK_FULL,
        f"{folder}: no room left to write: {usage.free / 1e9:.2f} GB of {usage.total / 1e9:.1f} GB are free. What "
        "was whole before is whole still: make room and start it again, and it goes on from there.",
    )


def _says_so(error: BaseException | None) -> bool:
    while error is not None:
        said = isinstance(error, OSError) and error.errno in FULL
        if said or any(os.strerror(number) in str(error) for number in FULL):  # safetensors' error is no OSError
            return True
        error = error.__cause__ or error.__context__
    return False


def _may_be(error: BaseException) -> bool:
    """torch's writer says only that it failed."""
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)


def _takes_no_more(folder: Path) -> bool:
    """Whether another file can be written at all."""
    probe = folder / ".room"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in FULL
    else:
        return False
    finally:
        probe.unlink(missing_ok=True)


def reserve(work: Path) -> None:
    """Keep a little room, in a folder of scratch files, for the last words of a run."""
    work.mkdir(parents=True, exist_ok=True)
    (work / RESERVE).write_bytes(bytes(RESERVE_BYTES))


def last_words(out: Path, code: int, line: str) -> None:
    """Say in OUT, by an event and a result, how a recipe failed; that there is no room is no error of its own."""
    known = code in set(RecipeExit)
    status = RecipeExit(code).name.lower() if known else "failed"
    with suppress(OSError):
        (out / WORK / RESERVE).unlink(missing_ok=True)
        EventLog(out).emit("failure", code=code, message=line)
        write_json(out / RESULT, {"status": status, "metrics": {"reason": line}, "artifacts": []})
