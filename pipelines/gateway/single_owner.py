"""One owner at a time, over all processes: a PostgreSQL advisory lock on a connection of its own."""

from __future__ import annotations

import contextlib
from types import TracebackType

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

_TAKE = text("SELECT pg_try_advisory_lock(hashtextextended('careloom.' || :name, 0))")
_ALIVE = text("SELECT 1")


class SingleOwner:
    """Holds a named lock for as long as its connection lives; when the process dies, PostgreSQL gives the lock away.

    Ownership saves work, it does not fence: for a moment after a broken connection two may think they own. What it
    guards must bear that.

    Args:
        engine: of the ledger.
        name: what is owned, for example "reconcile.hospital".
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None

    def held(self) -> bool:
        """Whether this process owns it now; takes it where it is free.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        if self._connection is not None:
            try:
                self._connection.execute(_ALIVE)
            except SQLAlchemyError:
                self.release()
            else:
                return True
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if connection.execute(_TAKE, {"name": self._name}).scalar():
            connection.detach()  # from the pool: closing it then ends the session, and with it the lock
            self._connection = connection
            return True
        connection.close()
        return False

    def release(self) -> None:
        """Give it away."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def __enter__(self) -> SingleOwner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
