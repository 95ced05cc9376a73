"""What the dispatcher does to the ledger: Kafka records become rows, rows become runs."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, text, update
from sqlalchemy.dialects.postgresql import insert

from pipelines.errors import ErrorClass
from pipelines.ledger import queries
from pipelines.ledger.intake import record
from pipelines.ledger.rows import Backlog, Incoming, Recorded, Run
from pipelines.ledger.states import State, sources_of
from pipelines.ledger.tables import runs
from pipelines.ledger.verbs import Verbs


class Dispatching(Verbs):
    """The dispatcher's verbs."""

    def record(self, batch: Sequence[Incoming]) -> Recorded:
        """Write a batch of Kafka records; when this returns, the offsets may be committed. See `intake.record`."""
        with self._engine.begin() as connection:
            return record(connection, batch, datetime.now(UTC))

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The first offset of a partition that is not in the ledger; None for a partition never read."""
        with self._engine.begin() as connection:
            return connection.execute(queries.NEXT_OFFSET, {"topic": topic, "partition": partition}).scalar()

    def rewind(self, topic: str, partition: int, offset: int) -> None:
        """Go on reading at `offset`: the broker lost its data or the topic was made anew; the sums stay right."""
        with self._engine.begin() as connection:
            connection.execute(queries.REWIND, {"topic": topic, "partition": partition, "offset": offset})

    def backlog(self) -> list[Backlog]:
        """What waits, by scenario; scenarios for which nothing waits or runs are left out."""
        with self._engine.begin() as connection:
            return [Backlog(**row._mapping) for row in connection.execute(queries.BACKLOG)]

    def take_run(self, scenario: str, size: int) -> Run | None:
        """Decide on a run: bind up to `size` rows of a scenario to a new run id.

        A patient's rows are taken in order, and none while another run of the scenario has rows of that patient, or an
        earlier row is parked or in a backoff. Rows of superseded versions become stale instead. Rows on which a worker
        was lost are taken by themselves, a quarter as many with each loss, so that the one that kills workers is alone
        in the end and takes nobody else into the dead letters. None when nothing is ready, or when the scenario or
        everything is switched off.
        """
        with self._engine.begin() as connection:
            connection.execute(queries.LOCK_SCENARIO, {"scenario": scenario})
            if connection.execute(queries.SWITCHED_OFF, {"scenario": scenario}).first():
                return None
            taken = self._ready(connection, scenario, size)
            if not taken:
                return None
            run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
            connection.execute(
                insert(runs).values(run_id=run_id, scenario=scenario, size=len(taken), decided_at=text("now()"))
            )
            connection.execute(queries.BIND, {"ids": taken, "run_id": run_id})
            return Run(run_id, scenario, len(taken), posted=False)

    @staticmethod
    def _ready(connection: Connection, scenario: str, size: int) -> list[int]:
        """The rows that the next run takes; superseded ones are made stale and passed over."""
        while True:
            ready = connection.execute(queries.READY, {"scenario": scenario, "size": size}).all()
            together = _together([(row.id, row.losses) for row in ready], size)
            stale = set(connection.execute(queries.SUPERSEDED, {"ids": together}).scalars())
            if stale:
                connection.execute(queries.STALE, {"ids": sorted(stale), "states": list(sources_of(State.STALE))})
            if len(stale) < len(together) or not together:
                return [id_ for id_ in together if id_ not in stale]

    def open_runs(self) -> list[Run]:
        """Runs that are not closed, oldest first; those not `posted` may or may not be known to Airflow."""
        with self._engine.begin() as connection:
            return [Run(**row._mapping) for row in connection.execute(queries.OPEN_RUNS)]

    def run_posted(self, run_id: str) -> None:
        """Airflow has the run (200, or 409: it was there)."""
        with self._engine.begin() as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(posted_at=text("now()")))

    def close_finished_runs(self) -> list[Run]:
        """Close the runs that have no unfinished row left, and return them."""
        with self._engine.begin() as connection:
            return [Run(**row._mapping) for row in connection.execute(queries.CLOSE_FINISHED)]

    def release_run(self, run_id: str, outcome: str) -> int:
        """A run ended without finishing its rows: give them back, and close it. Returns the number given back.

        Rows that a worker had begun on count an attempt (they may be what killed it), come back in ever smaller company
        (see `take_run`), and are parked after the last attempt. Rows that nobody had begun on count none.
        """
        with self._engine.begin() as connection:
            values = {
                "run_id": run_id,
                "outcome": outcome,
                "max_attempts": self._max_attempts,
                "error_class": ErrorClass.WORKER_LOST.value,
                "wait": self._wait(1, None),
            }
            begun = list(connection.execute(queries.RELEASE, values).scalars())
            scenario = connection.execute(queries.CLOSE_RUN, values).scalar()
            if any(begun):
                lost = {"error_class": ErrorClass.WORKER_LOST.value, "count": sum(begun)}
                connection.execute(queries.COUNT_FAILURE, {"scenario": scenario, **lost})
            return len(begun)


def _together(ready: Sequence[tuple[int, int]], size: int) -> list[int]:
    """The first rows (id, workers lost on it) that may share a run: of one number of losses; none is skipped."""
    if not ready:
        return []
    losses = ready[0][1]
    company = itertools.takewhile(lambda row: row[1] == losses, ready[: max(1, size >> (2 * losses))])
    return [id_ for id_, _ in company]
