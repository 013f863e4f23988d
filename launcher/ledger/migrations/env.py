"""What Alembic runs: the versions, on the connection (and inside the transaction) it was given."""

from alembic import context

from launcher.ledger.schema import metadata

if hasattr(context, "config"):  # run by Alembic, not just imported
    context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
