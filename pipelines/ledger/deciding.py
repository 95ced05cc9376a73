"""What people do to the ledger: switches, and the account of everything."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, text
from sqlalchemy.dialects.postgresql import insert

from pipelines.ledger.rows import Account
from pipelines.ledger.snapshot import account
from pipelines.ledger.tables import switches, switchings
from pipelines.ledger.verbs import Verbs


class Deciding(Verbs):
    """People's verbs."""

    def switch_off(self, kind: str, name: str, *, by: str, why: str) -> None:
        """Stop "everything", a "scenario" or a "model"; what waits is kept."""
        statement = insert(switches).values(kind=kind, name=name, by=by, why=why, since=text("now()"))
        with self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["kind", "name"], set_={"by": by, "why": why})
            )
            _turned(connection, kind, name, off=True, by=by, why=why)

    def switch_on(self, kind: str, name: str, *, by: str, why: str = "") -> bool:
        """Let it go on; False when it was not off."""
        with self._engine.begin() as connection:
            gone = switches.delete().where(switches.c.kind == kind, switches.c.name == name)
            was_off = connection.execute(gone).rowcount == 1
            if was_off:
                _turned(connection, kind, name, off=False, by=by, why=why)
            return was_off

    def switchings(self, size: int = 50) -> list[Row[Any]]:
        """kind, name, off, by, why, at of the last times that somebody turned a switch, newest first."""
        with self._engine.begin() as connection:
            return list(connection.execute(switchings.select().order_by(switchings.c.id.desc()).limit(size)))

    def switched_off(self) -> list[Row[Any]]:
        """kind, name, by, why, since of everything that is off."""
        with self._engine.begin() as connection:
            return list(connection.execute(switches.select().order_by(switches.c.since)))

    def is_off(self, kind: str, name: str) -> bool:
        """Whether this or everything is switched off."""
        return any(row.kind == "everything" or (row.kind, row.name) == (kind, name) for row in self.switched_off())

    def account(self) -> Account:
        """The sum over everything; see `Account`. Costs the same however many rows are finished."""
        with self._engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            return account(connection)


def _turned(connection: Connection, kind: str, name: str, *, off: bool, by: str, why: str) -> None:
    connection.execute(insert(switchings).values(kind=kind, name=name, off=off, by=by, why=why, at=text("now()")))
