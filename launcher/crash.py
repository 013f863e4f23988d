"""A fault of the launcher itself: the whole story goes into a file without secrets, one line of it to a person."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path

from launcher.redact import redact

FOLDER = "crashes"


def keep(error: BaseException, root: Path | None) -> Path | None:
    """Write the traceback where its owner alone can read it: below the launcher's folder, else among the temporary

    files. None where neither can be written.
    """
    story = redact("".join(traceback.format_exception(error)))
    for folder in (root / FOLDER if root is not None and root.is_dir() else None, Path(tempfile.gettempdir())):
        if folder is None:
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            handle, name = tempfile.mkstemp(".txt", "launcher-", folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(story)
        except OSError:
            continue
        return Path(name)
    return None


def words(error: BaseException, kept: Path | None) -> str:
    """The one line."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    where = f"The whole story, without secrets: {kept}" if kept else "It could not be written down."
    return f"a fault of the launcher ({what[:300]}). {where}"
