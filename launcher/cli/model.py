"""A model as it is named on the command line: a .nemo file that is there, or a pretrained name."""

from __future__ import annotations

from pathlib import Path


def named_model(name: str, key: str = "MODEL") -> str:
    """The absolute path of a .nemo file, or the pretrained name as it stands.

    Raises BadInputError for a .nemo file that is absent, and for any other file or folder that is there.
    """
    from launcher.errors import BadInputError

    path = Path(name).expanduser()
    if name.endswith(".nemo"):
        if not path.is_file():
            raise BadInputError("no such .nemo file.", key=key, value=name, file=name)
        return str(path.absolute())
    if path.is_file():
        raise BadInputError("is not a .nemo file.", key=key, value=name, file=name, fix="MODEL comes first.")
    return name
