"""Which rows the next run of a scenario takes, or a run that stays: one rule for both."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from pipelines.ledger import taking_queries, version_queries
from pipelines.ledger.states import State, sources_of

#: The moment at which a statement is carried out.
CLOCK = text("clock_timestamp()")


def new_run_id() -> str:
    """Of a run that is decided on now; told by its time where people look."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True)
class Ready:
    """Rows that may be taken now.

    Attributes:
        ids: of all of them, oldest first.
        rules_only: of those whose rules alone may run.
    """

    ids: Sequence[int] = ()
    rules_only: Sequence[int] = ()


def ready(connection: Connection, scenario: str, size: int, *, blameless: bool = False) -> Ready:
    """The rows that may be taken next; superseded ones are made stale and passed over. None while switched off.

    The caller's transaction holds the scenario until its end, so that nobody else takes the same.

    Args:
        connection: in a transaction; the caller binds the rows to a run in it.
        scenario: whose.
        size: rows at most.
        blameless: whether rows over which a worker was lost are left for runs of their own, and what is behind them.
    """
    connection.execute(taking_queries.LOCK_SCENARIO, {"scenario": scenario})
    if connection.execute(taking_queries.SWITCHED_OFF, {"scenario": scenario}).first():
        return Ready()
    while True:
        found: Sequence[Row[Any]] = connection.execute(taking_queries.READY, {"scenario": scenario, "size": size}).all()
        if blameless:
            found = list(itertools.takewhile(lambda row: not row.losses, found))  # none is skipped: order is kept
        together = _together([(row.id, row.losses) for row in found], size)
        if not together:
            return Ready()
        stale = set(connection.execute(version_queries.SUPERSEDED, {"ids": together}).scalars())
        if stale:
            connection.execute(version_queries.STALE, {"ids": sorted(stale), "states": list(sources_of(State.STALE))})
        if len(stale) < len(together):
            behind = {row.id for row in found if row.behind}
            taken = [id_ for id_ in together if id_ not in stale]
            return Ready(taken, [id_ for id_ in taken if id_ in behind])


def _together(rows: Sequence[tuple[int, int]], size: int) -> list[int]:
    """The first rows (id, workers lost on it) that may share a run: of one number of losses; none is skipped."""
    if not rows:
        return []
    losses = rows[0][1]
    company = itertools.takewhile(lambda row: row[1] == losses, rows[: max(1, size >> (2 * losses))])
    return [id_ for id_, _ in company]
