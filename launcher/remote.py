"""What runs on a rented machine: `setup` and `run` of sky/*.yaml, the same text whoever rents the machine out.

The files lie in sky/ for `sky launch`; launcher/tasks is a link to that folder in a checkout, and the folder itself
in an installed package. The texts are bash and know a machine's home folder and these variables alone:

CODE            the folder that holds recipes/, its lock included (setup, run)
RECIPE          finetune, evaluate (run)
SPEC, OUT       the arguments of `python -m recipes.RECIPE` (run); it replaces the shell, so that signals reach it
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from launcher.errors import BadInputError

TASKS = Path(__file__).parent / "tasks"
_DOCKER = "docker:"

#: POSIX sh, to be run before the first file is sent, for rsync carries it: a step of its own over the bare line,
#: which needs nothing on the machine but ssh and python3. SkyPilot's machines have rsync; a plain image may not.
PREPARE = """
if command -v rsync >/dev/null 2>&1; then exit 0; fi
if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo -n"; fi
if command -v apt-get >/dev/null 2>&1; then
  $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rsync
elif command -v dnf >/dev/null 2>&1; then $as_root dnf install -y -q rsync
elif command -v microdnf >/dev/null 2>&1; then $as_root microdnf install -y rsync
elif command -v apk >/dev/null 2>&1; then $as_root apk add --quiet rsync
fi
command -v rsync >/dev/null 2>&1 || { echo "this machine has no rsync, and none could be installed" >&2; exit 1; }
"""


def recipes_with_a_task() -> tuple[str, ...]:
    """The recipes that have a task file, in alphabetical order."""
    return tuple(sorted(path.stem for path in TASKS.glob("*.yaml")))


@cache
def _text(recipe: str) -> str:
    if recipe not in recipes_with_a_task():
        raise BadInputError(
            "no task file says how this recipe runs on a rented machine.", key="recipe", value=recipe,
            fix=f"There is one for: {', '.join(recipes_with_a_task())}.",
        )  # fmt: skip
    return (TASKS / f"{recipe}.yaml").read_text(encoding="utf-8")


def task_file(recipe: str) -> dict[str, Any]:
    """The task file of a recipe, as SkyPilot reads it; raises BadInputError where there is none."""
    import yaml

    held: dict[str, Any] = yaml.safe_load(_text(recipe))
    return held


def setup_of(recipe: str) -> str:
    """Bash that makes ~/parakeet-env there, or finds it: `bash -c` with CODE."""
    return str(task_file(recipe)["setup"])


def run_of(recipe: str) -> str:
    """Bash that becomes the recipe: `bash -c` with CODE, RECIPE, SPEC and OUT."""
    return str(task_file(recipe)["run"])


def image_of(recipe: str) -> str:
    """The container image that is rented with unless a job names another, as `docker pull` takes it."""
    return str(task_file(recipe)["resources"]["image_id"]).removeprefix(_DOCKER)


def env_of(recipe: str, code: str, spec: str, out: str) -> Mapping[str, str]:
    """The variables of `run_of` for paths on that machine; `setup_of` takes the same."""
    return {"RECIPE": recipe, "CODE": code, "SPEC": spec, "OUT": out, "PYTHONUNBUFFERED": "1"}
