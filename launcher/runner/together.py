"""A step on several machines at once: started by their provider, all or none, and never half of it started again.

Each machine runs it as any step is run (recipes/supervise.py, in the lease's folder), so that it is followed, sent
signals and ended in the same way. What is written by the first machine counts; the others join it and end with it.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts.base import HostError
from launcher.hosts.gang import Gang
from launcher.hosts.ssh import PASSED_THERE
from launcher.providers.base import ProviderError, StartsTogether
from launcher.providers.release import machine_of
from launcher.runner.boarding import Aboard

#: What the recipe is told of the machines, by SkyPilot's names (docs.skypilot.co, "Distributed jobs").
TOLD = ("SKYPILOT_NODE_RANK", "SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NUM_GPUS_PER_NODE")
STARTS_S = 300.0  # from being asked for to being started on each machine
ENDS_S = 30.0  # what was killed is gone by then
_LOOK_S = 0.5
# The supervisor leads a session of its own, which it ends by SIGKILL, itself included: how the step ended is told by
# its file. Whoever started it here goes by that: it ends the step on all machines where it failed on one.
_LEAD = """
import json, subprocess, sys
subprocess.run(sys.argv[2:], start_new_session=True, check=False)
sys.exit(json.load(open(sys.argv[1]))["code"])
"""


@effect("step.together")
def start_together(aboard: Aboard, step: str, argv: Sequence[str], env: Mapping[str, str], clock: Clock) -> None:
    """Start a step on all machines of a lease; returns once it has started on each. Raises HostError.

    What runs of it there, from a start that nobody saw through, is ended first.
    """
    gang, provider = aboard.host, aboard.provider
    if not isinstance(gang, Gang) or not isinstance(provider, StartsTogether):
        raise HostError(f"{aboard.lease.provider} does not start a step on several machines at once")
    end_everywhere(gang, step, clock)
    gang.expect(step)
    try:
        provider.start_together(machine_of(aboard.lease), step, script_of(gang, step, argv, env))
    except ProviderError as error:
        raise HostError(f"{step} was not started on all machines: {error.problem}") from error
    ends = clock.monotonic() + STARTS_S
    while any(node.status(step).state == "absent" for node in gang.nodes):
        if clock.monotonic() > ends:
            raise HostError(f"{step} did not start on all machines within {STARTS_S:.0f} s")
        clock.sleep(_LOOK_S)


def end_everywhere(gang: Gang, step: str, clock: Clock) -> None:
    """Kill a step wherever it runs; raises HostError where it goes on."""
    ends = clock.monotonic() + ENDS_S
    while any(node.status(step).state == "running" for node in gang.nodes):
        gang.signal(step, signal.SIGKILL)
        if clock.monotonic() > ends:
            raise HostError(f"{step} did not end on all machines")
        clock.sleep(_LOOK_S)


def script_of(gang: Gang, step: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Bash that is the step on any of the machines: with the settings any step gets, and what TOLD names."""
    kept = " ".join(f'${{{name}+"{name}=${name}"}}' for name in dict.fromkeys((*PASSED_THERE, *TOLD)))
    given = " ".join(shlex.quote(f"{name}={value}") for name, value in env.items())
    supervised = shlex.join([gang.box_python, "-I", ".host/supervise.py", f"{gang.root}/steps/{step}", "--", *argv])
    lead = shlex.join([gang.box_python, "-I", "-c", _LEAD, f"{gang.root}/steps/{step}/exit.json"])
    return f"cd {shlex.quote(gang.root)} || exit 1\nexec {lead} env -i {kept} {given} {supervised}\n"
