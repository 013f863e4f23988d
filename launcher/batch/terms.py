"""What the ledger keeps of a batch beside its amount: whom each job may be rented from, and runs it met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.ledger import Batch, Ledger
from launcher.plan import Allowed

TERMS, MET = "batch.terms", "batch.met"


@dataclass(frozen=True)
class Packed:
    """Jobs that are to share one machine, one after another: the offer (provider, id) and their places."""

    offer: tuple[str, str]
    items: tuple[int, ...]


@dataclass(frozen=True)
class Covered:
    """What a YES covers, by job: whom it may be rented from, why it was refused before, who shares a machine."""

    allowed: dict[int, Allowed]
    refused: dict[int, str]
    packed: tuple[Packed, ...] = ()


def keep_terms(ledger: Ledger, batch_id: str, allowed: Mapping[str, Any], refused: Mapping[str, str],
               packed: Sequence[Packed] = ()) -> None:  # fmt: skip
    """Write down, right after the YES, what it covers."""
    together = [{"offer": list(each.offer), "items": list(each.items)} for each in packed]
    ledger.journal(TERMS, {"allowed": dict(allowed), "refused": dict(refused), "packed": together}, run=batch_id)


def terms(ledger: Ledger, batch_id: str) -> Covered | None:
    """What was written down; None when the launcher was killed between the YES and that: nothing was started then."""
    held = next((event["facts"] for event in ledger.events(batch_id) if event["kind"] == TERMS), None)
    if held is None:
        return None
    return Covered(
        {int(item): Allowed.model_validate(value) for item, value in held["allowed"].items()},
        {int(item): why for item, why in held["refused"].items()},
        tuple(Packed((each["offer"][0], each["offer"][1]), tuple(each["items"])) for each in held.get("packed", [])),
    )


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
