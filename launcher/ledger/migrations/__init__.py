"""The ledger's schema, version by version (Alembic).

A change of `schema.py` comes with: a new file in `versions/`, the next SCHEMA_VERSION, and nothing that an earlier
version's rows would lose. Alembic is imported only to take an older ledger to the present schema.
"""
