"""The journal of intents, states, reservations and charges."""

from launcher.ledger.journal import Lease, Ledger, Run, owner
from launcher.ledger.states import LeaseState, RunState

__all__ = ["Lease", "LeaseState", "Ledger", "Run", "RunState", "owner"]
