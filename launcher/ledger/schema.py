"""The ledger's tables. Money is text (exact dollars), time is ISO 8601 UTC text, facts are JSON."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

SCHEMA_VERSION = 3

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

# Alembic's own: which version it would go on from. `meta` says the same, to launchers without Alembic.
alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

runs = Table(
    "runs",
    metadata,
    Column("run", String(16), primary_key=True),
    Column("run_key", String(64), nullable=False),  # same job, data and settings: the same key
    Column("state", String(20), nullable=False),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("owner", Text, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("outcome", JSON),  # what `run --json` prints, once the run is over
    Column("batch", String(16), index=True),
    Column("item", Integer),  # which job of the batch: its place in the file, from 0
    Column("place", Text),  # machine and home whose runner lock says whether it lives
)
# One live run for a key, enforced where two launchers cannot race past it.
Index(
    "one_live_run_per_key",
    runs.c.run_key,
    unique=True,
    sqlite_where=text("state IN ('planned','approved','reserved','running','collected')"),
    postgresql_where=text("state IN ('planned','approved','reserved','running','collected')"),
)

leases = Table(
    "leases",
    metadata,
    Column("lease", String(32), primary_key=True),
    Column("run", String(16), ForeignKey("runs.run"), nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("provider", String(40), nullable=False),
    Column("account", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("label", String(120), nullable=False, unique=True),
    Column("max_usd_per_hour", String(24), nullable=False),
    Column("reserved_usd", String(24), nullable=False),
    Column("deadline", String(32), nullable=False),
    Column("machine", JSON),  # the provider's own reference, once known
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("proof", JSON),  # two timestamped absences, once released
    Column("via", String(20), nullable=False, server_default="direct"),  # which engine rents it
)

steps = Table(
    "steps",
    metadata,
    Column("run", String(16), ForeignKey("runs.run"), primary_key=True),
    Column("step", String(40), primary_key=True),
    Column("state", String(20), nullable=False),  # started, done
    Column("result", JSON),
    Column("updated_at", String(32), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("run", String(16), index=True),
    Column("lease", String(32)),
    Column("kind", String(60), nullable=False),
    Column("facts", JSON, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("run", String(16), ForeignKey("runs.run"), primary_key=True),
    Column("at", String(32), nullable=False),
    Column("who", Text, nullable=False),
    Column("how", String(20), nullable=False),  # typed, preapproved, free
    Column("ceiling_usd", String(24), nullable=False),
    Column("allowed", JSON, nullable=False),
    Column("digest", String(64), nullable=False),
)

reservations = Table(
    "reservations",
    metadata,
    Column("run", String(16), ForeignKey("runs.run"), primary_key=True),
    Column("budget", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("amount_usd", String(24), nullable=False),
    Column("settled_at", String(32)),
)

charges = Table(
    "charges",
    metadata,
    Column("lease", String(32), ForeignKey("leases.lease"), primary_key=True),
    Column("run", String(16), ForeignKey("runs.run"), nullable=False, index=True),
    Column("at", String(32), nullable=False),
    Column("amount_usd", String(24), nullable=False),
    Column("source", String(40), nullable=False),  # whose word it is: free, rate x time, invoice
)

# One YES for many runs: its amount binds them all together, whatever day it is.
batches = Table(
    "batches",
    metadata,
    Column("batch", String(16), primary_key=True),
    Column("batch_key", String(64), nullable=False),  # same file and settings: the same key
    Column("state", String(20), nullable=False),  # live, over
    Column("at", String(32), nullable=False),
    Column("who", Text, nullable=False),
    Column("how", String(20), nullable=False),  # typed, preapproved, free
    Column("file", Text, nullable=False),
    Column("amount_usd", String(24), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("outcome", JSON),
)
Index(
    "one_live_batch_per_key",
    batches.c.batch_key,
    unique=True,
    sqlite_where=text("state = 'live'"),
    postgresql_where=text("state = 'live'"),
)

# What was measured, for the next estimate: seconds of audio that one second of work went through.
throughputs = Table(
    "throughputs",
    metadata,
    Column("run", String(16), primary_key=True),
    Column("recipe", String(40), primary_key=True),
    Column("at", String(32), nullable=False),
    Column("gpu", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("method", String(40), nullable=False),
    Column("precision", String(40), nullable=False),
    Column("parameters", BigInteger, nullable=False),
    Column("audio_s_per_s", Float, nullable=False),
    Column("audio_s", Float, nullable=False),
)
