"""Schema 3: a lease says which engine rents its machine."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add the column; all that was rented before was rented directly."""
    op.add_column("leases", sa.Column("via", sa.String(20), nullable=False, server_default="direct"))
