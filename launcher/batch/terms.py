"""What the ledger keeps of a batch beside its amount: whom each job may be rented from, and runs it met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.ledger import Batch, Ledger
from launcher.plan import Allowed

TERMS, MET = "batch.terms", "batch.met"


def keep_terms(ledger: Ledger, batch_id: str, allowed: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Write down, right after the YES, what it covers."""
    ledger.journal(TERMS, {"allowed": dict(allowed), "refused": dict(refused)}, run=batch_id)


def terms(ledger: Ledger, batch_id: str) -> tuple[dict[int, Allowed], dict[int, str]] | None:
    """By job: whom it may be rented from; and the jobs that were refused before the YES, with the reason.

    None when the launcher was killed between the YES and this: nothing was started then.
    """
    held = next((event["facts"] for event in ledger.events(batch_id) if event["kind"] == TERMS), None)
    if held is None:
        return None
    allowed = {int(item): Allowed.model_validate(value) for item, value in held["allowed"].items()}
    return allowed, {int(item): why for item, why in held["refused"].items()}


def meet(ledger: Ledger, batch_id: str, item: int, run: str) -> None:
    """Remember that a job of the batch was running already, launched by itself."""
    ledger.journal(MET, {"item": item, "run": run}, run=batch_id)


def met_runs(ledger: Ledger, batch_id: str) -> dict[int, str]:
    """The runs a batch met, by job."""
    events = ledger.events(batch_id)
    return {int(event["facts"]["item"]): str(event["facts"]["run"]) for event in events if event["kind"] == MET}


def find_batch(ledger: Ledger, key: str) -> Batch | None:
    """The newest batch with this key, live or over."""
    return next((batch for batch in ledger.batches() if batch.batch_key == key), None)
