"""The journal of intents, states, reservations and charges.

Each name is imported when it is first used: what only asks for `Caps` does not pay for SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.ledger.accounts import Charged
    from launcher.ledger.caps import Caps
    from launcher.ledger.journal import Ledger
    from launcher.ledger.records import Batch, Lease, Reservation, Run, Throughput
    from launcher.ledger.states import LeaseState, RunState
    from launcher.ledger.store import owner, slug

_WHERE = {
    "Batch": "records", "Caps": "caps", "Charged": "accounts", "Lease": "records", "LeaseState": "states",
    "Ledger": "journal", "Reservation": "records", "Run": "records", "RunState": "states", "Throughput": "records",
    "owner": "store", "slug": "store",
}  # fmt: skip
__all__ = [
    "Batch", "Caps", "Charged", "Lease", "LeaseState", "Ledger", "Reservation", "Run", "RunState", "Throughput",
    "owner", "slug",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"launcher.ledger.{_WHERE[name]}"), name)
