"""The journal of intents, states, reservations and charges."""

from launcher.ledger.caps import Caps
from launcher.ledger.journal import Ledger
from launcher.ledger.records import Batch, Lease, Reservation, Run, Throughput
from launcher.ledger.states import LeaseState, RunState
from launcher.ledger.store import owner

__all__ = ["Batch", "Caps", "Lease", "LeaseState", "Ledger", "Reservation", "Run", "RunState", "Throughput", "owner"]
