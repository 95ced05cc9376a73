"""The ledger's connection and its schema."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

#: Seconds after which PostgreSQL ends a transaction whose process does not move. No verb thinks in the middle of one; a
#: paused host must not keep the locks of its last step from the others.
_IDLE_IN_TRANSACTION = 15

#: When a host that vanished without a word (power, a moved address) counts as gone: after about a minute, and not after
#: the kernel's two hours.
_GONE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,  # milliseconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

#: Seconds that who cannot wait for the ledger has for it: less than Prometheus waits for a scrape (10 s).
PATIENCE = 4

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Seconds after which a connection in the pool is asked whether it still is one.
_IDLE = 1.0
_SINCE = "idle since"


def engine(url: str, *, pool_size: int = 5, patience: int | None = None) -> Engine:
    """An engine for the ledger. Statement parameters never stand in its errors: they may be a patient's.

    Args:
        url: SQLAlchemy URL of a PostgreSQL database; the driver is set to psycopg.
        pool_size: connections kept.
        patience: seconds that connecting and any one statement may take; None for as long as it takes.
    """
    options = f"-c idle_in_transaction_session_timeout={patience or _IDLE_IN_TRANSACTION}s"
    arguments: dict[str, Any] = {"options": options, **_GONE}
    if patience is not None:
        arguments |= {
            "connect_timeout": patience,
            "tcp_user_timeout": patience * 1000,
            "options": f"{options} -c statement_timeout={patience}s",
        }
    made = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=5,
        hide_parameters=True,
        connect_args=arguments,
        json_serializer=_json,
        json_deserializer=orjson.loads,
    )
    event.listen(made, "checkin", _lay_down)
    event.listen(made, "checkout", partial(_take_up, made.dialect))
    return made


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def impatient_engine(url: str) -> Engine:
    """The same for what would rather say that the ledger is down than wait for it: an exporter, a page."""
    return engine(url, pool_size=2, patience=PATIENCE)


def _lay_down(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    entry.info[_SINCE] = time.monotonic()


def _take_up(
    dialect: Dialect, connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection
) -> None:
    """Ask a connection that has lain idle whether its server is still there.

    One that was in use a moment ago is not asked: as SQLAlchemy's `pool_pre_ping`, before every transaction, it was a
    quarter of all round trips to the ledger.

    Raises:
        InvalidatePoolError: it is not; the pool makes another connection.
    """
    since = entry.info.get(_SINCE)
    if since is None or time.monotonic() - since < _IDLE:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error:
        raise InvalidatePoolError from None


def migrate(url: str) -> None:
    """Bring the schema of the ledger at `url` to this version; safe to call at every start, and by two at once."""
    from alembic import command  # a quarter of this package's import time, and every task imports it
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = url
    command.upgrade(config, "head")
