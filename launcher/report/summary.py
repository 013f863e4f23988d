"""One run in a few fields, as `status` lists it."""

from __future__ import annotations

from typing import Any

from launcher.layers import rescues
from launcher.ledger import Ledger, Run
from launcher.money import ZERO, Usd


def summary(run: Run, ledger: Ledger, *, alive: bool, guarded: bool = False) -> dict[str, Any]:
    """`runs[]` of `status --json`: {run, state, leases[], spent_usd, deadline, ...}."""
    leases = ledger.leases(run.run)
    return {
        "run": run.run,
        "state": str(run.state),
        "over": run.over,
        "alive": alive,
        "guarded": guarded,
        "rescues": rescues(ledger, run.run) if leases else [],
        "reason": run.reason,
        "exit": run.exit_code,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "leases": [
            {
                "lease": lease.lease, "provider": lease.provider, "state": str(lease.state), "label": lease.label,
                "usd_per_hour": str(lease.max_usd_per_hour), "deadline": lease.deadline, "proof": lease.proof or [],
            }
            for lease in leases
        ],
        "spent_usd": str(ledger.spent(run.run)) if leases else str(Usd(ZERO)),
        "deadline": leases[-1].deadline if leases else "",
    }  # fmt: skip
