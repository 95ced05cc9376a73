"""What a replay does to the ledger: events are picked page by page, and rows are added beside those that are finished.

A finished row never changes. A replay adds rows of its own, told apart by `work.replay`; their results have the same
identity as before, so that what was written is recognised. How many were added stands in `replays`, in the same
transaction: the account stays exact when a replay is killed in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from pipelines.ledger import deciding_queries as queries
from pipelines.ledger.rows import EventRow, Match, Position
from pipelines.ledger.tables import replays
from pipelines.ledger.verbs import Verbs


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are to be run again.

    Attributes:
        types: resource types that some scenario waits for.
        until: events that Kafka had before (timezone-aware).
        since: events that Kafka had at or after; None for all.
        source: of this source; None for all.
        event_id: this one alone.
    """

    types: Sequence[str]
    until: datetime
    since: datetime | None = None
    source: str | None = None
    event_id: str | None = None

    @property
    def _values(self) -> dict[str, Any]:
        return {
            "types": list(self.types),
            "since": self.since,
            "until": self.until,
            "source": self.source,
            "event_id": self.event_id,
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """One event that is to be run again by one scenario."""

    event_id: str
    match: Match


@dataclass(frozen=True, slots=True)
class Added:
    """What became of what was wanted.

    Attributes:
        rows: pieces of work that were added, or would be.
        under_way: left out, as a piece of work of the event and scenario is not finished yet.
        discarded: left out, as a person gave it up.
        parked: ids of dead letters that are in the way: a person decides on them.
    """

    rows: int = 0
    under_way: int = 0
    discarded: int = 0
    parked: tuple[int, ...] = field(default=())


class Replaying(Verbs):
    """The verbs of `careloom replay`."""

    def begin_replay(self, *, by: str, why: str, chosen: Mapping[str, str]) -> int:
        """Write down who has events run again, why and which; returns the replay's number."""
        values = {"by": by, "why": why, "at": datetime.now(UTC), "filter": dict(chosen)}
        with self._engine.begin() as connection:
            return int(connection.execute(insert(replays).values(values).returning(replays.c.id)).scalar_one())

    def end_replay(self, replay: int) -> None:
        """It has come through to its end."""
        with self._engine.begin() as connection:
            connection.execute(queries.REPLAY_ENDED, {"replay": replay})

    def count_events(self, selection: Selection) -> int:
        """How many events are selected."""
        with self._engine.begin() as connection:
            return int(connection.execute(queries.REPLAY_COUNT, selection._values).scalar_one())

    def page_of_events(self, selection: Selection, after: EventRow | None, size: int) -> list[EventRow]:
        """The next selected events, in the order in which Kafka had them.

        Args:
            selection: which.
            after: the last one of the page before; None for the first page.
            size: events at most.
        """
        place = {
            "after_at": after.durable_at if after else datetime.min.replace(tzinfo=UTC),
            "after_partition": after.position.partition if after else -1,
            "after_offset": after.position.offset if after else -1,
            "after_id": after.event_id if after else "",
        }
        with self._engine.begin() as connection:
            rows = connection.execute(queries.REPLAY_PAGE, {**selection._values, **place, "size": size})
            return [EventRow.of(row) for row in rows]

    def knows(self, event_id: str) -> bool:
        """Whether there is such an event."""
        with self._engine.begin() as connection:
            return connection.execute(queries.EVENT_KNOWN, {"event_id": event_id}).first() is not None

    def add_replays(self, replay: int | None, wanted: Sequence[Wanted], *, discarded_too: bool = False) -> Added:
        """Add a row for each that nothing stands in the way of.

        Args:
            replay: number of the replay; None to say what would be added, and add nothing.
            wanted: in the order in which they are to be worked on.
            discarded_too: run again what a person gave up, as he named it himself.
        """
        if not wanted:
            return Added()
        with self._engine.begin() as connection:
            connection.execute(queries.LOCK_REPLAY)
            return self._add(connection, replay, wanted, discarded_too)

    @staticmethod
    def _add(connection: Connection, replay: int | None, wanted: Sequence[Wanted], discarded_too: bool) -> Added:
        names = {"event_ids": [one.event_id for one in wanted], "scenarios": [one.match.scenario for one in wanted]}
        standing = connection.execute(queries.STANDING, names).all()
        parked = tuple(row.parked for row in standing if row.parked is not None)
        under_way = sum(row.parked is None and row.under_way for row in standing)
        discarded = sum(row.discarded and row.parked is None and not discarded_too for row in standing)
        free = [
            wanted[row.n - 1]
            for row in standing
            if row.parked is None and not row.under_way and (discarded_too or not row.discarded)
        ]
        rows = len(free)
        if replay is not None and free:
            values = {
                "event_ids": [one.event_id for one in free],
                "scenarios": [one.match.scenario for one in free],
                "versions": [one.match.version for one in free],
                "stages": [one.match.stage for one in free],
                "replay": replay,
            }
            rows = connection.execute(queries.REPLAY_WORK, values).rowcount
            connection.execute(queries.REPLAY_ROWS, {"rows": rows, "replay": replay})
        return Added(rows, under_way, discarded, parked)

    def moved(self, event_id: str, position: Position) -> None:
        """The event's bytes are to be had at another place in Kafka."""
        values = {
            "event_id": event_id,
            "topic": position.topic,
            "partition": position.partition,
            "offset": position.offset,
        }
        with self._engine.begin() as connection:
            connection.execute(queries.MOVED, values)

    def waiting(self) -> int:
        """How many pieces of work wait for a run."""
        with self._engine.begin() as connection:
            return int(connection.execute(queries.WAITING).scalar_one())


__all__ = ["Added", "Replaying", "Selection", "Wanted"]
