"""Hearing of rows that may be ready, by PostgreSQL's LISTEN; who hears nothing looks by himself, only later."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg

from pipelines.ledger.database import engine
from pipelines.ledger.staying_queries import CHANNEL


async def heard(url: str, scenario: str) -> AsyncIterator[None]:
    """Once when it listens, as something may have come before, and whenever rows of the scenario may be ready.

    Args:
        url: of the ledger.
        scenario: whose rows.

    Raises:
        psycopg.Error: there is no connection, or none any more.
    """
    named = engine(url)  # to read the URL as all others do; it connects to nothing
    _, arguments = named.dialect.create_connect_args(named.url)
    async with await psycopg.AsyncConnection.connect(**arguments, autocommit=True) as connection:
        await connection.execute(f"LISTEN {CHANNEL}")
        yield
        async for told in connection.notifies():
            if told.payload == scenario:
                yield
