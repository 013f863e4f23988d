"""A job file with some of its keys written over from a batch file; a fault names the file that wrote the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.configfile import ConfigFile, KeyPath
from launcher.errors import BadInputError
from launcher.job import Job, load_job

Changes = Mapping[str, Any]  # dotted keys of the job file: {"spec.max_steps": 200}


class _Changed(ConfigFile):
    """A job file as if the changes stood in it."""

    def __init__(self, path: Path, changes: Changes) -> None:
        super().__init__(path)
        for key, value in changes.items():
            self._write(key, value)

    def _write(self, key: str, value: Any) -> None:
        part = self.data
        *parents, last = key.split(".")
        for name in parents:
            if part.get(name) is None:
                part[name] = {}
            part = part[name]
            if not isinstance(part, dict):
                raise BadInputError(f"{name} is no mapping in {self.path}.", key=key, fix=f"Write over {name} whole.")
        part[last] = value


def load_changed(path: Path, changes: Changes, batch: ConfigFile, at: KeyPath) -> Job:
    """The job at `path` with `changes` (which stand `at` these keys of the batch file); raises BadInputError."""
    if not changes:
        return load_job(path)
    try:
        return load_job(path, _Changed(path, changes))
    except BadInputError as error:
        # pydantic reports a value of a list by its place; the key that was written over is what stands before it
        named = error.key.replace("[", ".")
        guilty = next((key for key in changes if f"{named}.".startswith(f"{key}.")), None)
        guilty = guilty or next((key for key in changes if named and key.startswith(f"{named}.")), None)
        if guilty is None:
            raise
        problem = error.problem + (f" (written over in {path.name})" if "." not in named else "")
        raise BadInputError(
            problem, fix=error.fix, file=batch.path, line=batch.line_of((*at, guilty)), key=error.key,
            value=error.value,
        ) from None  # fmt: skip
