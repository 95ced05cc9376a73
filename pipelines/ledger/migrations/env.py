"""Alembic's entry: runs the migrations on the URL that `pipelines.ledger.migrate` was given, one at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from pipelines.ledger.database import engine
from pipelines.ledger.tables import metadata

_LOCK = 0x6361_7265  # "care"

database = engine(context.config.attributes["url"], pool_size=1)
with database.connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    try:
        context.configure(connection=connection, target_metadata=metadata, version_table="careloom_schema")
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()
database.dispose()
