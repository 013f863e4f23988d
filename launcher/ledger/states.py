"""The two state machines: a run, and the leases (rented machines) it executes on. Never mixed."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands."""

    PLANNED = "planned"
    APPROVED = "approved"
    RESERVED = "reserved"
    RUNNING = "running"
    COLLECTED = "collected"
    SETTLED = "settled"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    STOPPED = "stopped"


class LeaseState(StrEnum):
    """Where a lease stands. Only RELEASED means that nothing bills, and it is proven."""

    INTENDED = "intended"
    CREATED = "created"
    ARMED = "armed"
    STAGED = "staged"
    BUSY = "busy"
    DRAINED = "drained"
    RELEASING = "releasing"
    RELEASED = "released"
    UNKNOWN = "unknown"
    RELEASE_PENDING = "release_pending"


_ENDS = (RunState.REFUSED, RunState.CANCELLED, RunState.FAILED, RunState.STOPPED)
RUN_TERMINAL = frozenset({RunState.SETTLED, *_ENDS})
RUN_MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.PLANNED: frozenset({RunState.APPROVED, *_ENDS}),
    RunState.APPROVED: frozenset({RunState.RESERVED, *_ENDS}),
    RunState.RESERVED: frozenset({RunState.RUNNING, *_ENDS}),
    RunState.RUNNING: frozenset({RunState.COLLECTED, *_ENDS}),
    RunState.COLLECTED: frozenset({RunState.SETTLED, *_ENDS}),
    **{state: frozenset() for state in (RunState.SETTLED, *_ENDS)},
}

# Nothing skips release: every state in which a machine may exist can go to releasing.
_AWAY = frozenset({LeaseState.RELEASING, LeaseState.UNKNOWN})
LEASE_MOVES: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.INTENDED: frozenset({LeaseState.CREATED, LeaseState.RELEASED, *_AWAY}),
    LeaseState.CREATED: frozenset({LeaseState.ARMED, *_AWAY}),
    LeaseState.ARMED: frozenset({LeaseState.STAGED, *_AWAY}),
    LeaseState.STAGED: frozenset({LeaseState.BUSY, *_AWAY}),
    LeaseState.BUSY: frozenset({LeaseState.DRAINED, *_AWAY}),
    LeaseState.DRAINED: frozenset({LeaseState.BUSY, *_AWAY}),
    LeaseState.RELEASING: frozenset({LeaseState.RELEASED, LeaseState.RELEASE_PENDING, LeaseState.UNKNOWN}),
    LeaseState.UNKNOWN: frozenset(
        {LeaseState.CREATED, LeaseState.RELEASING, LeaseState.RELEASED, LeaseState.RELEASE_PENDING}
    ),
    LeaseState.RELEASE_PENDING: frozenset({LeaseState.RELEASING, LeaseState.RELEASED}),
    LeaseState.RELEASED: frozenset(),
}
