"""What the dispatcher does to the ledger: Kafka records become rows, rows become runs."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, text, update
from sqlalchemy.dialects.postgresql import insert

from pipelines.errors import ErrorClass
from pipelines.ledger import queries
from pipelines.ledger.intake import record
from pipelines.ledger.rows import Backlog, Incoming, Recorded, Run, Standing
from pipelines.ledger.states import State, sources_of
from pipelines.ledger.tables import runs
from pipelines.ledger.verbs import Verbs


class Dispatching(Verbs):
    """The dispatcher's verbs."""

    def record(self, batch: Sequence[Incoming], epochs: Mapping[tuple[str, int], int] | None = None) -> Recorded:
        """Write a batch of Kafka records; when this returns, the offsets may be committed. See `intake.record`.

        Raises:
            ReadBeforeRewind: a partition was rewound since `epochs` were told; nothing is written.
        """
        with self._engine.begin() as connection:
            return record(connection, batch, datetime.now(UTC), epochs)

    def standing(self, topic: str, partition: int) -> Standing:
        """How far a partition was read, and in which epoch."""
        with self._engine.begin() as connection:
            row = connection.execute(queries.NEXT_OFFSET, {"topic": topic, "partition": partition}).one_or_none()
            return Standing() if row is None else Standing(row.next_offset, row.epoch, row.committed_once)

    def committed_once(self, topic: str, partition: int, offset: int) -> None:
        """The broker has acknowledged an offset of our group: from now on, that it has none means that it lost data."""
        with self._engine.begin() as connection:
            connection.execute(queries.COMMITTED_ONCE, {"topic": topic, "partition": partition, "offset": offset})

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The first offset of a partition that is not in the ledger; None for a partition never read."""
        with self._engine.begin() as connection:
            return connection.execute(queries.NEXT_OFFSET, {"topic": topic, "partition": partition}).scalar()

    def rewind(self, topic: str, partition: int, offset: int, epoch: int | None = None) -> bool:
        """Go on reading at `offset`: the broker lost its data or the topic was made anew; the sums stay right.

        A new epoch begins: what another dispatcher has read before, `record` no longer takes.

        Args:
            topic, partition: what is read again.
            offset: where to go on.
            epoch: in which the loss was seen; where another began since, somebody else has rewound it already. None for
                whichever it is.

        Returns:
            whether it was rewound.
        """
        values = {"topic": topic, "partition": partition, "offset": offset, "epoch": epoch}
        with self._engine.begin() as connection:
            return connection.execute(queries.REWIND, values).rowcount == 1

    def backlog(self) -> list[Backlog]:
        """What waits, by scenario; scenarios for which nothing waits or runs are left out."""
        with self._engine.begin() as connection:
            return [Backlog(**row._mapping) for row in connection.execute(queries.BACKLOG)]

    def take_run(self, scenario: str, size: int, *, traces: bool = False) -> Run | None:
        """Decide on a run: bind up to `size` rows of a scenario to a new run id.

        A patient's rows are taken in order, and none while another run of the scenario has rows of that patient, or an
        earlier row is parked, in a backoff, or waits for a dependency that is down; a row behind such a one comes once,
        for its rules alone (`WorkItem.rules_only`). Rows of superseded versions become stale instead. Rows on which a
        worker was lost are taken by themselves, a quarter as many with each loss, so that the one that kills workers is
        alone in the end and takes nobody else into the dead letters. None when nothing is ready, or when the scenario
        or everything is switched off.

        Args:
            scenario: whose.
            size: rows at most.
            traces: whether the contexts of all its events are wanted; of a single one it is given in any case.
        """
        with self._engine.begin() as connection:
            connection.execute(queries.LOCK_SCENARIO, {"scenario": scenario})
            if connection.execute(queries.SWITCHED_OFF, {"scenario": scenario}).first():
                return None
            taken, rules_only = self._ready(connection, scenario, size)
            if not taken:
                return None
            run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
            connection.execute(
                insert(runs).values(run_id=run_id, scenario=scenario, size=len(taken), decided_at=text("now()"))
            )
            values = {"ids": taken, "run_id": run_id, "rules_only": rules_only, "traces": traces or len(taken) == 1}
            told = connection.execute(queries.BIND, values).scalars()
            return Run(run_id, scenario, len(taken), posted=False, traces=tuple(t for t in told if t))

    @staticmethod
    def _ready(connection: Connection, scenario: str, size: int) -> tuple[list[int], list[int]]:
        """The rows that the next run takes, and those of them that it takes for their rules alone.

        Superseded ones are made stale and passed over.
        """
        while True:
            ready = connection.execute(queries.READY, {"scenario": scenario, "size": size}).all()
            together = _together([(row.id, row.losses) for row in ready], size)
            stale = set(connection.execute(queries.SUPERSEDED, {"ids": together}).scalars())
            if stale:
                connection.execute(queries.STALE, {"ids": sorted(stale), "states": list(sources_of(State.STALE))})
            if len(stale) < len(together) or not together:
                behind = {row.id for row in ready if row.behind}
                taken = [id_ for id_ in together if id_ not in stale]
                return taken, [id_ for id_ in taken if id_ in behind]

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
                "wait": self._pace.wait(1),
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
