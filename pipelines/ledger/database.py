"""The ledger's connection and its schema."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

_MIGRATIONS = Path(__file__).parent / "migrations"


def engine(url: str, *, pool_size: int = 5) -> Engine:
    """An engine for the ledger. Statement parameters never stand in its errors: they may be a patient's.

    Args:
        url: SQLAlchemy URL of a PostgreSQL database; the driver is set to psycopg.
        pool_size: connections kept.
    """
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=5,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def migrate(url: str) -> None:
    """Bring the schema of the ledger at `url` to this version; safe to call at every start, and by two at once."""
    from alembic import command  # a quarter of this package's import time, and every task imports it
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = url
    command.upgrade(config, "head")
