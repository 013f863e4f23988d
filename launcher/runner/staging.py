"""What a machine gets before its first step: the recipes, their environment, the data, a base of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.bundle import Bundle, place_of
from launcher.clock import Clock, parse_iso
from launcher.failpoints import effect
from launcher.hosts.base import Host, HostError
from launcher.hosts.gang import nodes_of
from launcher.hosts.local import LocalHost
from launcher.job import looks_like_path
from launcher.ledger import Lease
from launcher.plan import Plan
from launcher.pulse import unhurried
from launcher.runner.boarding import Aboard
from launcher.runner.mirror import Mirror
from launcher.transfer import link_to, prepare_bundle

SETUP = "setup"
_LOOK_S = 1.0
_LAST_WORDS = 1 << 16  # bytes of a log that are looked at for why it ended


@effect("bundle.make")
def bundle_of(plan: Plan, run_dir: Path) -> Bundle:
    """Everything that will be sent, made here before anything is rented."""
    names = ("train", "validation", "general_train", "general_validation", "unlabelled")
    manifests = {name: Path(plan.data[name]) for name in names if plan.data.get(name)}
    with unhurried():  # how long it takes is the data's affair
        tokenizer = plan.spec.get("tokenizer")
        link = link_to(plan.choice.offer)
        return prepare_bundle(run_dir, manifests, base_of(plan), link, Path(tokenizer) if tokenizer else None)


def base_of(plan: Plan) -> Path | None:
    """The base model, where it is a file of the user's, or a teacher's folder."""
    base = str(plan.spec.get("base", plan.spec.get("model", "")))
    return Path(base) if looks_like_path(base) else None


def send(aboard: Aboard, there: Bundle, plan: Plan, mirror: Mirror, clock: Clock) -> None:
    """Send what is missing, to each machine; a rented one makes the environment meanwhile. HostError when it cannot.

    Safe to repeat: what is there already is not sent again.
    """
    rented, nodes = is_rented(aboard.host), nodes_of(aboard.host)
    mirror.say("phase", name="staging")
    for host in nodes:  # one after another: the line from here is what they would share
        if rented:
            from launcher.remote import PREPARE

            _finish(host, "prepare", ["sh", "-c", PREPARE], {}, aboard.lease, clock)
        host.put(there.root / "code", "code")
        if rented:
            from launcher.remote import setup_of

            setup = ["bash", "-c", setup_of(plan.recipe)]
            host.start(SETUP, setup, {"CODE": host.path("code")})
    for host in nodes:
        host.put(there.root / "data", "data")
        base = base_of(plan)
        if base is not None:
            host.put(there.root / place_of(str(base)), place_of(str(base)))
    if rented:
        mirror.say("phase", name=SETUP)
        for host in nodes:
            _finish(host, SETUP, setup, {"CODE": host.path("code")}, aboard.lease, clock)


def command(aboard: Aboard, recipe: str, spec: str, out: str) -> tuple[list[str], dict[str, str]]:
    """How a step is started on this machine: its command and the settings it gets."""
    host = aboard.host
    if not is_rented(host):
        argv = [host.python, "-m", f"recipes.{recipe}", host.path(spec), host.path(out)]
        return argv, {"PYTHONPATH": host.path("code"), "PYTHONUNBUFFERED": "1"}
    from launcher.remote import env_of, run_of

    return ["bash", "-c", run_of(recipe)], dict(env_of(recipe, host.path("code"), host.path(spec), host.path(out)))


def is_rented(host: Host) -> bool:
    """Whether it is somebody else's machine, which has none of our environments."""
    return not isinstance(host, LocalHost)


def _finish(host: Host, step: str, argv: list[str], env: dict[str, str], lease: Lease, clock: Clock) -> None:
    """Run a script to its end, once; raises HostError with its last words when it fails or takes too long."""
    ends = parse_iso(lease.deadline)
    while True:
        status = host.status(step)
        if status.state in ("absent", "lost"):
            host.start(step, argv, env)
        elif status.state == "exited":
            break
        elif clock.now() >= ends:
            raise HostError(f"{step} was not done by the deadline")
        clock.sleep(_LOOK_S)
    if status.code != 0:
        said: list[Any] = host.read(f"steps/{step}/log", 0, _LAST_WORDS).decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), f"exit code {status.code}")
        raise HostError(f"{step} failed on the machine: {last[:300]}", fix="Its image may not be one for this.")
