"""Where the two Python environments are and whether they are ready: the launcher's, and the recipes'.

Standard library only, so that `make env` can run it with any bare Python 3.11. `launcher.envbuild` builds them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import BadInputError

STAMP = ".complete.json"  # in an environment's folder, written last
ROOT = Path(__file__).resolve().parents[1]  # the checkout, or site-packages
RECIPE_LOCK, RECIPE_ASKS = ROOT / "recipes" / "requirements.lock", ROOT / "recipes" / "requirements.in"
LAUNCHER_LOCK = ROOT / "launcher" / "requirements.lock"
LAYOUT = "1"  # part of every fingerprint: raise it when the way of building changes
OVERRIDE = "LAUNCHER_RECIPE_PYTHON"
WHY_NOT_READY = {
    "absent": "is not there",
    "unfinished": "was not built to its end",
    "stale": "was built from another lock",
}


@dataclass(frozen=True)
class Environment:
    """One virtual environment: where it is, what goes into it, and the hash of that."""

    name: str
    root: Path
    fingerprint: str
    requirements: tuple[str, ...]  # arguments of `pip install`
    lock: Path
    needs_gb: float  # on disk, the CPU build
    wipe_when_stale: bool

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def state(self) -> str:
        """`ready`, `absent`, `unfinished` (a build was cut short) or `stale` (built from another lock)."""
        if not self.python.exists():
            return "absent"
        stamp = fingerprint_in(self.root / STAMP)
        if stamp is None:
            return "unfinished"
        return "ready" if stamp == self.fingerprint else "stale"


def checkout() -> Path | None:
    """The root of the source checkout this launcher runs from, or None when it is installed elsewhere."""
    return ROOT if (ROOT / "pyproject.toml").is_file() and (ROOT / "Makefile").is_file() else None


def launcher_environment() -> Environment:
    """`.venv` of the checkout: the launcher, editable, with every extra but `train`."""
    root = checkout()
    if root is None:
        raise BadInputError("there is no source checkout here.", fix="Clone the project, then: make env")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {key: value for key, value in project["project"].items() if key not in {"description", "readme"}}
    asked["optional-dependencies"] = {**asked["optional-dependencies"], "train": []}
    asked_bytes = json.dumps([asked, project["build-system"]], sort_keys=True).encode()
    fingerprint = _hash([asked_bytes, LAUNCHER_LOCK.read_bytes()])
    # editable_mode=compat writes a plain path into a .pth file. The default is an import hook that every
    # start of this Python would pay for, `launcher --help` too.
    wanted = ("--config-settings", "editable_mode=compat", "--editable", f"{root}[cloud,demo,dev]")
    return Environment("launcher", root / ".venv", fingerprint, wanted, LAUNCHER_LOCK, 1.5, wipe_when_stale=False)


def recipe_environment() -> Environment:
    """The recipes': `.venv-recipes` in a checkout, else one folder per lock in the user's data."""
    fingerprint = _hash([RECIPE_LOCK.read_bytes(), RECIPE_ASKS.read_bytes()])
    root = checkout()
    if root is not None:
        place = root / ".venv-recipes"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        place = data / "parakeet-launcher" / "envs" / fingerprint
    wanted = ("--requirement", str(RECIPE_ASKS))
    return Environment("recipes", place, fingerprint, wanted, RECIPE_LOCK, 3.5, wipe_when_stale=True)


def recipe_python() -> Path:
    """The Python that runs recipes: $LAUNCHER_RECIPE_PYTHON, else the managed environment's.

    Raises BadInputError, with the command that mends it, when that environment is not there, not finished,
    or built from another lock.
    """
    given = os.environ.get(OVERRIDE)
    if given:
        python = Path(given).expanduser()
        if not (python.is_file() and os.access(python, os.X_OK)):
            fix = f"Unset {OVERRIDE}, or give it the bin/python of an environment with NeMo."
            raise BadInputError("is not a Python that can be run.", key=OVERRIDE, value=given, fix=fix)
        return python
    environment = recipe_environment()
    state = environment.state
    if state != "ready":
        why = WHY_NOT_READY[state]
        raise BadInputError(f"the recipe environment (torch, NeMo) {why}.", file=environment.root, fix=build_fix())
    return environment.python


def build_fix() -> str:
    """The command that builds the recipe environment here."""
    return "Build it: make env" if checkout() else "Build it: launcher doctor --fix"


def _hash(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256(LAYOUT.encode())
    for part in parts:
        digest.update(b"\0" + part)
    return digest.hexdigest()[:16]


def fingerprint_in(path: Path) -> str | None:
    """The fingerprint that a stamp file holds, or None when there is none to read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
