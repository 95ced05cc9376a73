"""What people do to the ledger: switches, dead letters, and the account of everything."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert

from pipelines.errors import LedgerError
from pipelines.ledger import queries
from pipelines.ledger.rows import Account
from pipelines.ledger.states import State
from pipelines.ledger.tables import switches
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

    def switch_on(self, kind: str, name: str) -> bool:
        """Let it go on; False when it was not off."""
        with self._engine.begin() as connection:
            gone = switches.delete().where(switches.c.kind == kind, switches.c.name == name)
            return connection.execute(gone).rowcount == 1

    def switched_off(self) -> list[Row[Any]]:
        """kind, name, by, why, since of everything that is off."""
        with self._engine.begin() as connection:
            return list(connection.execute(switches.select().order_by(switches.c.since)))

    def is_off(self, kind: str, name: str) -> bool:
        """Whether this or everything is switched off."""
        return any(row.kind == "everything" or (row.kind, row.name) == (kind, name) for row in self.switched_off())

    def dead_letters(self) -> list[Row[Any]]:
        """id, scenario, error_class, error, attempts, matched_at of parked rows, oldest first."""
        with self._engine.begin() as connection:
            return list(connection.execute(queries.DEAD_LETTERS))

    def decide_dead_letter(self, work_id: int, target: State, *, by: str, why: str) -> None:
        """Retry (`State.WAITING`) or discard (`State.DISCARDED`) a parked row.

        Raises:
            LedgerError: there is no such parked row.
        """
        if target not in (State.WAITING, State.DISCARDED):
            raise LedgerError(f"a dead letter can be retried or discarded, not made {target}")
        values = {"id": work_id, "state": target.value, "note": f"{target.value} by {by}: {why}"}
        with self._engine.begin() as connection:
            if connection.execute(queries.DECIDE, values).rowcount != 1:
                raise LedgerError(f"work {work_id} is not a dead letter; `careloom dead-letters` lists them")

    def account(self) -> Account:
        """The sum over everything; see `Account`. Costs the same however many rows are finished."""
        with self._engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            sums = connection.execute(queries.PROGRESS_SUMS).one()
            counts: dict[State, int] = {}
            for state, number in connection.execute(queries.WORK_BY_STATE):
                counts[State(state)] = counts.get(State(state), 0) + int(number)
            return Account(**{key: int(value) for key, value in sums._mapping.items()}, work=counts)
