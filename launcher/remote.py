"""What runs on a rented machine: `setup` and `run` of sky/*.yaml, the same text whoever rents the machine out.

The files lie in sky/ for `sky launch`; launcher/tasks is a link to that folder in a checkout, and the folder itself
in an installed package. The texts are bash and know a machine's home folder and these variables alone:

CODE            the folder that holds recipes/, its lock included (setup, run)
RECIPE          finetune, evaluate (run)
SPEC, OUT       the arguments of `python -m recipes.RECIPE` (run); it replaces the shell, so that signals reach it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recipes
from launcher.errors import BadInputError

if TYPE_CHECKING:
    from launcher.offers.offer import Offer
    from launcher.plan import Plan

TASKS = Path(__file__).parent / "tasks"
RECIPES = Path(recipes.__file__).parent
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


def task_of(plan: Plan) -> dict[str, Any]:
    """The SkyPilot task that a plan's choice would be rented with, alone on its instance type, its end included.

    Raises BadInputError for a choice that SkyPilot does not rent.
    """
    offer = plan.choice.offer
    task = task_file(plan.recipe)
    resources = {name: value for name, value in task["resources"].items() if name != "accelerators"}
    resources = {
        "infra": f"{offer.provider}/{offer.region}" if offer.via == "skypilot" and offer.region else offer.provider,
        "instance_type": instance_type_of(offer), "use_spot": False, **resources,
        "autostop": {"idle_minutes": max(1, int(plan.deadline_h * 60)), "down": True, "wait_for": "none"},
        "labels": {"parakeet-launcher": plan.recipe, "plan": plan.digest[:12]},
    }  # fmt: skip
    mounts = {there: str(RECIPES) if here == "recipes" else here for there, here in task["file_mounts"].items()}
    nodes = {"num_nodes": plan.nodes} if plan.nodes > 1 else {}
    return {**task, "resources": resources, **nodes, "file_mounts": mounts}


def instance_type_of(offer: Offer) -> str:
    """SkyPilot's name of what an offer rents; raises BadInputError where SkyPilot has no such thing.

    RunPod's GPUs by SkyPilot's own table (sky/provision/runpod/utils.py, 0.14.1). An offer of Vast's cannot be
    pinned there, and Brev and this machine it does not know.
    """
    if offer.via == "skypilot" and offer.provider != "runpod":
        return offer.instance_type
    if offer.provider != "runpod":
        raise BadInputError(
            f"the plan's choice is not rented through SkyPilot: {offer.provider} {offer.gpu}.", key="provider",
            value=offer.provider, fix="See the task for another one: launcher render JOB --provider runpod",
        )  # fmt: skip
    if re.fullmatch(r"\d+x_\S+_(SECURE|COMMUNITY)", offer.instance_type):
        return offer.instance_type
    try:
        from sky.provision.runpod.utils import GPU_NAME_MAP
    except ImportError:
        raise BadInputError(
            "SkyPilot is not installed: its names of RunPod's machines are not known.",
            fix="pip install 'parakeet-launcher[cloud]'",
        ) from None
    named = {theirs: ours for ours, theirs in GPU_NAME_MAP.items()}
    if offer.instance_type not in named:
        raise BadInputError("SkyPilot has no name for this GPU of RunPod's.", key="gpu", value=offer.instance_type,
                            fix="Choose another: --gpu L40S")  # fmt: skip
    cloud = "COMMUNITY" if offer.trust == "marketplace" else "SECURE"
    return f"{offer.count}x_{named[offer.instance_type]}_{cloud}"


def yaml_of(task: Mapping[str, Any]) -> str:
    """A task as YAML for a person and for SkyPilot: texts of several lines as they are, keys in the task's order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump(dict(task), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
