"""What a row's tries did, added up on it: tokens, guards' verdicts, plugins' counters; folded when it is finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from pipelines.errors import LeaseLost
from pipelines.ledger.rows import Tally, WorkItem
from pipelines.ledger.tables import work
from pipelines.ledger.verbs import Verbs


class Tallying(Verbs):
    """The verb for tries that came to nothing; of those that succeeded `inferred` writes the tally with the drafts."""

    def tallied(self, item: WorkItem, tally: Tally) -> None:
        """Keep what a failed try did: its tokens are paid for all the same.

        Raises:
            LeaseLost: the row is another worker's.
        """
        if tally == Tally():
            return
        with self._engine.begin() as connection:
            values = with_earlier(connection, item, tally)
            statement = update(work).where(work.c.id == item.id, work.c.lease == item.lease).values(**values)
            if connection.execute(statement).rowcount != 1:
                raise LeaseLost(f"work {item.id} is no longer leased to this worker; nothing was changed")


def with_earlier(connection: Connection, item: WorkItem, tally: Tally) -> dict[str, Any]:
    """The columns of a row with a try's tally added; the row is locked until the transaction ends."""
    columns = (work.c.asked, work.c.verdicts, work.c.counted)
    row = connection.execute(select(*columns).where(work.c.id == item.id).with_for_update()).one()
    return {name: added(row._mapping[name] or {}, value) or None for name, value in _columns(tally).items()}


def alone(tally: Tally) -> dict[str, Any]:
    """The same columns of a row whose earlier tries left nothing, which need not be read and locked for it."""
    return {name: added({}, value) or None for name, value in _columns(tally).items()}


def _columns(tally: Tally) -> dict[str, Mapping[str, Any]]:
    return {"asked": tally.asked, "verdicts": tally.verdicts, "counted": tally.counted}


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees with numbers at their ends as one: numbers are added up, of words the other's hold."""
    whole = dict(one)
    for key, value in other.items():
        before = whole.get(key)
        if isinstance(value, Mapping):
            whole[key] = added(before if isinstance(before, Mapping) else {}, value)
        elif isinstance(value, int | float) and isinstance(before, int | float):
            whole[key] = before + value
        else:
            whole[key] = value
    return whole
