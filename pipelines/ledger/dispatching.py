"""What the dispatcher does to the ledger: Kafka records become rows, rows become runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import null, text, update
from sqlalchemy.dialects.postgresql import insert

from pipelines.errors import ErrorClass
from pipelines.ledger import receiving_queries, run_queries, taking_queries
from pipelines.ledger.intake import record
from pipelines.ledger.rows import Backlog, Incoming, Recorded, Run, Standing
from pipelines.ledger.tables import runs
from pipelines.ledger.taking import CLOCK, new_run_id, ready
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
            row = connection.execute(
                receiving_queries.NEXT_OFFSET, {"topic": topic, "partition": partition}
            ).one_or_none()
            return Standing() if row is None else Standing(row.next_offset, row.epoch, row.committed_once)

    def committed_once(self, topic: str, partition: int, offset: int) -> None:
        """The broker has acknowledged an offset of our group: from now on, that it has none means that it lost data."""
        with self._engine.begin() as connection:
            connection.execute(
                receiving_queries.COMMITTED_ONCE, {"topic": topic, "partition": partition, "offset": offset}
            )

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The first offset of a partition that is not in the ledger; None for a partition never read."""
        with self._engine.begin() as connection:
            return connection.execute(receiving_queries.NEXT_OFFSET, {"topic": topic, "partition": partition}).scalar()

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
            return connection.execute(receiving_queries.REWIND, values).rowcount == 1

    def backlog(self) -> list[Backlog]:
        """What waits, by scenario; scenarios for which nothing waits or runs are left out."""
        with self._engine.begin() as connection:
            return [Backlog(**row._mapping) for row in connection.execute(taking_queries.BACKLOG)]

    def take_run(
        self, scenario: str, size: int, *, traces: bool = False, held: Sequence[Sequence[str | int]] = ()
    ) -> Run | None:
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
            held: what kept the scenario waiting before this run, as `holdups.Holdups` has it.
            traces: whether the contexts of all its events are wanted; of a single one it is given in any case.
        """
        with self._engine.begin() as connection:
            found = ready(connection, scenario, size)
            if not found.ids:
                return None
            run_id = new_run_id()
            connection.execute(
                insert(runs).values(
                    run_id=run_id,
                    scenario=scenario,
                    size=len(found.ids),
                    decided_at=CLOCK,
                    held=list(held) if held else null(),
                )
            )
            values = {
                "ids": found.ids,
                "run_id": run_id,
                "rules_only": found.rules_only,
                "traces": traces or len(found.ids) == 1,
            }
            told = connection.execute(taking_queries.BIND, values).scalars()
            return Run(run_id, scenario, len(found.ids), posted=False, traces=tuple(t for t in told if t))

    def open_runs(self) -> list[Run]:
        """Runs that are not closed, oldest first; those not `posted` may or may not be known to Airflow."""
        with self._engine.begin() as connection:
            return [Run(**row._mapping) for row in connection.execute(run_queries.OPEN_RUNS)]

    def run_posted(self, run_id: str) -> None:
        """Airflow has the run (200, or 409: it was there)."""
        with self._engine.begin() as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(posted_at=text("now()")))

    def close_finished_runs(self) -> list[Run]:
        """Close the runs that have no unfinished row left and do not stay, and return them."""
        with self._engine.begin() as connection:
            ids = list(connection.execute(run_queries.FINISHED).scalars())
            if not ids:
                return []
            return [Run(**row._mapping) for row in connection.execute(run_queries.CLOSE_FINISHED, {"ids": ids})]

    def release_run(self, run_id: str, outcome: str, *, blameless: bool = False) -> int:
        """A run ended without finishing its rows: give them back, and close it. Returns the number given back.

        Rows that a worker had begun on count an attempt (they may be what killed it), come back in ever smaller company
        (see `take_run`), and are parked after the last attempt. Rows that nobody had begun on count none.

        Args:
            run_id: the run.
            outcome: how it ended.
            blameless: whether something else ended it, as the ledger's own outage does: then no row counts an attempt.
        """
        with self._engine.begin() as connection:
            values = {
                "run_id": run_id,
                "outcome": outcome,
                "blameless": blameless,
                "max_attempts": self._max_attempts,
                "error_class": ErrorClass.WORKER_LOST.value,
                "wait": self._pace.wait(1),
            }
            connection.execute(run_queries.LOCK_RUN, values)
            released = connection.execute(run_queries.RELEASE, values).all()
            scenario = connection.execute(run_queries.CLOSE_RUN, values).scalar()
            # where a worker was is known only when drafts are computed
            lost = Counter("written" if row.writing else "started" for row in released if row.begun)
            for hop, count in sorted(lost.items()):
                failure = {"error_class": ErrorClass.WORKER_LOST.value, "hop": hop, "count": count}
                connection.execute(run_queries.COUNT_FAILURE, {"scenario": scenario, **failure})
            return len(released)
