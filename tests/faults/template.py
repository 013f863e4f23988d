"""`python -m tests.faults.template HOME JOB NTH [SECONDS]`: a home whose run is approved and reserved, not begun.

It takes the NTH (0) of the plan's offers: those of a marketplace can be rented once at a time. With SECONDS the run's
deadline is that many seconds after its machine is rented, and its ceiling is what just that buys (rate x (deadline +
TEARDOWN_S), disk and one failed attempt, to the microdollar): hours made short, so that what happens at a deadline
can be watched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launcher import workflow
from launcher.approval import Approval
from launcher.clock import SystemClock
from launcher.home import Home
from launcher.job import load_job
from launcher.ledger import Ledger
from launcher.money import Usd
from launcher.plan import Candidate, Plan

TEARDOWN_S = 90.0  # from the deadline until somebody has looked and the release is proven
_PARTS = {"provision_s": 0.3, "run_s": 0.6, "collect_s": 0.1}  # of a short deadline


def shortened(plan: Plan, seconds: float) -> Plan:
    """The same plan with that deadline and the ceiling that goes with it."""

    def short(each: Candidate) -> Candidate:
        held = each.ceiling
        billed_s = held.provision_s + held.run_s + held.collect_s + held.teardown_s
        parts = {name: seconds * share for name, share in _PARTS.items()}
        share = (seconds + TEARDOWN_S) / billed_s
        machine, disk = Usd(f"{float(held.machine_usd) * share:.6f}"), Usd(f"{float(held.disk_usd) * share:.6f}")
        retry = Usd(f"{float(held.max_usd_per_hour) * parts['provision_s'] / 3600:.6f}")
        made = held.model_copy(update={
            **parts, "teardown_s": TEARDOWN_S, "machine_usd": machine, "disk_usd": disk, "retry_usd": retry,
            "usd": Usd(machine + disk + retry + held.transfer_usd),
        })  # fmt: skip
        return each.model_copy(update={"ceiling": made})

    return plan.model_copy(update={"candidates": tuple(short(each) for each in plan.candidates)})


def main(root: str, job: str, nth: str, seconds: str = "") -> int:
    home, clock = Home(Path(root)), SystemClock()
    plan = workflow.plan_job(load_job(Path(job)), home, clock).plan
    plan = plan.model_copy(update={"chosen": int(nth) % sum(each.fits for each in plan.candidates)})
    if seconds:
        plan = shortened(plan, float(seconds))
    given = Approval("preapproved", plan.ceiling_usd, plan.allowed, plan.digest)
    approval = {
        "how": given.how, "ceiling_usd": given.ceiling_usd, "digest": given.digest,
        "allowed": given.allowed.model_dump(mode="json"),
    }  # fmt: skip
    ledger = Ledger.open(home, clock)
    run, _ = ledger.create_run(plan.run_key, plan.model_dump(mode="json"), plan.digest, approval=approval)
    workflow.advance(ledger, run)
    sys.stdout.write(f"{run.run} {plan.ceiling_usd}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
