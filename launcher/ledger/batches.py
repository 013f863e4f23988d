"""Batches and measured throughput in the ledger."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, insert, select, update

from launcher.errors import BadInputError
from launcher.ledger import schema as t
from launcher.ledger.records import Batch, Run, Throughput, batch_of, run_of, throughput_of
from launcher.ledger.store import Conflict, Store, owner, text_of
from launcher.money import Usd


class Batches(Store):
    """The part of the ledger that knows batches, and what earlier runs measured."""

    def create_batch(self, key: str, amount: Usd, how: str, digest: str, file: str) -> tuple[Batch, bool]:
        """A new live batch with its approved amount (USD), or the live one of this key: (batch, whether new)."""
        batch_id = f"b{self._rng.getrandbits(24):06x}"
        values = {
            "batch": batch_id, "batch_key": key, "state": "live", "at": self._now(), "who": owner(), "how": how,
            "file": file, "amount_usd": text_of(amount), "digest": digest,
        }  # fmt: skip
        try:
            with self.writing() as db:
                db.execute(insert(t.batches).values(values))
                facts = {"batch": batch_id, "how": how, "amount_usd": text_of(amount), "digest": digest}
                self._note(db, "batch.approved", facts)
        except Conflict:
            with self.reading() as db:
                live = (t.batches.c.batch_key == key) & (t.batches.c.state == "live")
                row = db.execute(select(t.batches).where(live)).mappings().first()
            if row is None:  # it ended meanwhile, or an id met by chance
                return self.create_batch(key, amount, how, digest, file)
            return batch_of(row), False
        return self.batch(batch_id), True

    def batch(self, name: str) -> Batch:
        """The batch with this id or unique beginning of an id; raises BadInputError."""
        with self.reading() as db:
            begins = t.batches.c.batch.startswith(name, autoescape=True)
            rows = db.execute(select(t.batches).where(begins)).mappings().all()
        exact = [row for row in rows if row["batch"] == name] or rows
        if len(exact) != 1:
            what = "matches several batches" if exact else "names no batch"
            raise BadInputError(f"{name!r} {what}.", key="BATCH", value=name, fix="Name it in full.")
        return batch_of(exact[0])

    def batches(self) -> list[Batch]:
        """All batches, newest first."""
        with self.reading() as db:
            return [batch_of(row) for row in db.execute(select(t.batches).order_by(t.batches.c.at.desc())).mappings()]

    def batch_runs(self, batch_id: str) -> list[Run]:
        """The runs of a batch, in the order of its jobs; a job tried again has several, oldest first."""
        order = (t.runs.c.item, t.runs.c.created_at)
        with self.reading() as db:
            rows = db.execute(select(t.runs).where(t.runs.c.batch == batch_id).order_by(*order)).mappings()
            return [run_of(row) for row in rows]

    def close_batch(self, batch_id: str, outcome: dict[str, Any]) -> None:
        """End a batch and keep what `batch --json` prints (idempotent: the first outcome stays)."""
        with self.writing() as db:
            live = (t.batches.c.batch == batch_id) & (t.batches.c.state == "live")
            if db.execute(update(t.batches).where(live).values(state="over", outcome=outcome)).rowcount:
                self._note(db, "batch.over", {"batch": batch_id})

    def add_throughput(self, measured: Throughput) -> None:
        """Keep what a run measured in a recipe; a second word of the same run replaces the first."""
        with self.writing() as db:
            same = (t.throughputs.c.run == measured.run) & (t.throughputs.c.recipe == measured.recipe)
            db.execute(delete(t.throughputs).where(same))
            db.execute(insert(t.throughputs).values(asdict(measured)))

    def throughputs(self, recipe: str | None = None, gpu: str | None = None) -> list[Throughput]:
        """What was measured (of a recipe, on a GPU), oldest first."""
        query = select(t.throughputs).order_by(t.throughputs.c.at)
        for column, wanted in ((t.throughputs.c.recipe, recipe), (t.throughputs.c.gpu, gpu)):
            query = query if wanted is None else query.where(column == wanted)
        with self.reading() as db:
            return [throughput_of(row) for row in db.execute(query).mappings()]
