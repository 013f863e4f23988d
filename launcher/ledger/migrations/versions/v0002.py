"""Schema 2: batches, measured throughput, and the machine whose lock says whether a run lives."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add columns that may be empty, and new tables: no row changes."""
    op.add_column("runs", sa.Column("batch", sa.String(16)))
    op.add_column("runs", sa.Column("item", sa.Integer))
    op.add_column("runs", sa.Column("place", sa.Text))
    op.create_index("ix_runs_batch", "runs", ["batch"])
    op.create_table(
        "batches",
        sa.Column("batch", sa.String(16), primary_key=True),
        sa.Column("batch_key", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("how", sa.String(20), nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("amount_usd", sa.String(24), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("outcome", sa.JSON),
    )
    live = sa.text("state = 'live'")
    op.create_index(
        "one_live_batch_per_key", "batches", ["batch_key"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "throughputs",
        sa.Column("run", sa.String(16), primary_key=True),
        sa.Column("recipe", sa.String(40), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("gpu", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("method", sa.String(40), nullable=False),
        sa.Column("precision", sa.String(40), nullable=False),
        sa.Column("parameters", sa.BigInteger, nullable=False),
        sa.Column("audio_s_per_s", sa.Float, nullable=False),
        sa.Column("audio_s", sa.Float, nullable=False),
    )
