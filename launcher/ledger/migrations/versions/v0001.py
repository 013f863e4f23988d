"""Schema 1: runs, leases, steps, events, approvals, reservations, charges."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

LIVE = "state IN ('planned','approved','reserved','running','collected')"


def upgrade() -> None:
    """Create the tables of the first schema."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(40), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("run", sa.String(16), primary_key=True),
        sa.Column("run_key", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("outcome", sa.JSON),
    )
    live = sa.text(LIVE)
    op.create_index(
        "one_live_run_per_key", "runs", ["run_key"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "leases",
        sa.Column("lease", sa.String(32), primary_key=True),
        sa.Column("run", sa.String(16), sa.ForeignKey("runs.run"), nullable=False, index=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("provider", sa.String(40), nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("offer_id", sa.Text, nullable=False),
        sa.Column("label", sa.String(120), nullable=False, unique=True),
        sa.Column("max_usd_per_hour", sa.String(24), nullable=False),
        sa.Column("reserved_usd", sa.String(24), nullable=False),
        sa.Column("deadline", sa.String(32), nullable=False),
        sa.Column("machine", sa.JSON),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.Column("proof", sa.JSON),
    )
    op.create_table(
        "steps",
        sa.Column("run", sa.String(16), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("step", sa.String(40), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("updated_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("run", sa.String(16), index=True),
        sa.Column("lease", sa.String(32)),
        sa.Column("kind", sa.String(60), nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_table(
        "approvals",
        sa.Column("run", sa.String(16), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("how", sa.String(20), nullable=False),
        sa.Column("ceiling_usd", sa.String(24), nullable=False),
        sa.Column("allowed", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "reservations",
        sa.Column("run", sa.String(16), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("budget", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("amount_usd", sa.String(24), nullable=False),
        sa.Column("settled_at", sa.String(32)),
    )
    op.create_table(
        "charges",
        sa.Column("lease", sa.String(32), sa.ForeignKey("leases.lease"), primary_key=True),
        sa.Column("run", sa.String(16), sa.ForeignKey("runs.run"), nullable=False, index=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("amount_usd", sa.String(24), nullable=False),
        sa.Column("source", sa.String(40), nullable=False),
    )
