"""The ledger's verbs: what dispatcher, runner, gateway and people do to it, each in one short transaction."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, literal, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from pipelines.errors import ErrorClass, LeaseLost, LedgerError, StepFailed
from pipelines.ledger import queries
from pipelines.ledger.intake import record
from pipelines.ledger.rows import (
    Account,
    Backlog,
    EventRow,
    Incoming,
    Inference,
    Position,
    Recorded,
    Run,
    WorkItem,
    Written,
)
from pipelines.ledger.states import State, sources_of
from pipelines.ledger.tables import reconciled, runs, subscriptions, switches, work


class Ledger:
    """One ledger; cheap to make, safe to share between threads.

    Args:
        engine: from `pipelines.ledger.engine`.
        max_attempts: failures of its own after which a row is parked.
        backoff: seconds before the second attempt; doubles with each, with full jitter.
        backoff_cap: seconds that a wait never exceeds.
    """

    def __init__(
        self, engine: Engine, *, max_attempts: int = 4, backoff: float = 1.0, backoff_cap: float = 60.0
    ) -> None:
        self._engine = engine
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._backoff_cap = backoff_cap

    # --- dispatcher: Kafka -> rows -----------------------------------------------------------------------------

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

    # --- dispatcher: rows -> runs ------------------------------------------------------------------------------

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

    # --- runner ------------------------------------------------------------------------------------------------

    def claim(self, run_id: str, lease_seconds: float) -> list[WorkItem]:
        """Take the rows of a run that are still to be inferred, under a new lease; earlier leases end."""
        return self._claim(queries.CLAIM, run_id, lease_seconds)

    def claim_inferred(self, run_id: str, lease_seconds: float) -> list[WorkItem]:
        """Take the rows of a run whose drafts wait to be written, under a new lease; earlier leases end."""
        return self._claim(queries.CLAIM_INFERRED, run_id, lease_seconds)

    def _claim(self, statement: Any, run_id: str, lease_seconds: float) -> list[WorkItem]:
        lease = uuid.uuid4().hex
        with self._engine.begin() as connection:
            rows = connection.execute(statement, {"run_id": run_id, "lease": lease, "seconds": lease_seconds})
            return sorted((_work_item(row) for row in rows), key=lambda item: item.id)

    def renew(self, items: Iterable[WorkItem], lease_seconds: float) -> set[int]:
        """Keep the leases of rows that are still being worked on; returns the ids of those that are still held."""
        held = list(items)
        values = {
            "ids": [item.id for item in held],
            "leases": [item.lease for item in held],
            "seconds": lease_seconds,
        }
        with self._engine.begin() as connection:
            return set(connection.execute(queries.RENEW, values).scalars())

    def superseded(self, items: Sequence[WorkItem]) -> set[int]:
        """Ids of those whose resource has a newer version in the ledger."""
        with self._engine.begin() as connection:
            return set(connection.execute(queries.SUPERSEDED, {"ids": [item.id for item in items]}).scalars())

    def rules_written(self, item: WorkItem, written: Written) -> None:
        """The drafts that rest on rules alone are at the FHIR server.

        Raises:
            LeaseLost: the row is another worker's.
        """
        with self._engine.begin() as connection:
            self._change(
                connection, item, State.RUNNING, {"rules_written_at": text("now()"), **_written_values(written)}
            )

    def inferred(self, item: WorkItem, inference: Inference) -> None:
        """The drafts are computed and lie in the outbox.

        Raises:
            LeaseLost: the row is another worker's.
        """
        values = {
            "drafts": dict(inference.drafts),
            "model": inference.model,
            "prompt_tokens": inference.prompt_tokens,
            "completion_tokens": inference.completion_tokens,
            "model_seconds": inference.model_seconds,
            "findings": inference.findings,
            "cut_statements": inference.cut_statements,
            "error_class": None,
            "error": None,
            **{
                hop: inference.times[hop]
                for hop in ("context_at", "answered_at", "guarded_at")
                if hop in inference.times
            },
        }
        with self._engine.begin() as connection:
            self._change(connection, item, State.INFERRED, values)

    def written(self, item: WorkItem, written: Written) -> None:
        """The drafts are at the FHIR server; the outbox is emptied.

        Raises:
            LeaseLost: the row is another worker's.
        """
        values = {
            "written_at": text("clock_timestamp()"),
            "finished_at": text("clock_timestamp()"),
            "drafts": None,
            "error_class": None,
            "error": None,
            **_written_values(written),
        }
        with self._engine.begin() as connection:
            self._change(connection, item, State.WRITTEN, values)

    def stale(self, item: WorkItem) -> None:
        """A newer version came: what was computed is thrown away.

        Raises:
            LeaseLost: the row is another worker's.
        """
        with self._engine.begin() as connection:
            self._change(connection, item, State.STALE, {"finished_at": text("clock_timestamp()"), "drafts": None})

    def give_back(self, item: WorkItem) -> None:
        """Nothing was done to a row, and nothing is wrong with it: it waits for another run; drafts are kept.

        Raises:
            LeaseLost: the row is another worker's.
        """
        target = State.INFERRED if item.state is State.INFERRED else State.WAITING
        with self._engine.begin() as connection:
            self._change(connection, item, target, {"run_id": None})

    def failed(self, item: WorkItem, failure: StepFailed) -> State:
        """A try failed: the row waits for another, or is parked when it cannot succeed.

        A dependency's failure costs the event no attempt. Drafts that were computed are kept: only their writing is
        tried again. Returns the row's new state.

        Raises:
            LeaseLost: the row is another worker's.
        """
        attempts = item.attempts if failure.transient else item.attempts + 1
        wait = self._wait(max(attempts, 1), failure.retry_after)
        values: dict[str, Any] = {
            "run_id": None,
            "attempts": attempts,
            "error_class": failure.error_class.value,
            "error": str(failure),
            "not_before": text("now() + make_interval(secs => :wait)").bindparams(wait=wait),
        }
        if attempts >= self._max_attempts:
            target = State.PARKED
        else:
            target = State.INFERRED if item.state is State.INFERRED else State.WAITING
        with self._engine.begin() as connection:
            connection.execute(
                queries.COUNT_FAILURE,
                {"scenario": item.scenario, "error_class": failure.error_class.value, "count": 1},
            )
            self._change(connection, item, target, values)
        return target

    def _change(self, connection: Connection, item: WorkItem, target: State, values: Mapping[str, Any]) -> None:
        allowed = (*sources_of(target), target.value)
        statement = (
            update(work)
            .where(work.c.id == item.id, work.c.lease == item.lease, work.c.state.in_(allowed))
            .values(state=target.value, **values)
        )
        if target is not State.RUNNING:
            statement = statement.values(lease=None, lease_until=None)
        if connection.execute(statement).rowcount != 1:
            raise LeaseLost(f"work {item.id} is no longer leased to this worker; nothing was changed")

    def _wait(self, attempt: int, retry_after: float | None) -> float:
        """Full jitter (Brooker, "Exponential Backoff And Jitter", 2015), never before the server's Retry-After."""
        jittered = random.uniform(0, min(self._backoff_cap, self._backoff * 2.0**attempt))  # noqa: S311 not a secret
        return max(jittered, min(retry_after or 0.0, self._backoff_cap))

    # --- gateway -----------------------------------------------------------------------------------------------

    def known(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the event identities that are in the ledger."""
        with self._engine.begin() as connection:
            return set(connection.execute(queries.KNOWN, {"ids": list(event_ids)}).scalars())

    def event_number(self, source: str, subscription: str, number: int) -> int:
        """Note an event number of a subscription; returns how many were skipped since the last (0: none).

        A number that is not higher than the last one is a redelivery, or the subscription was made anew with 1.
        """
        with self._engine.begin() as connection:
            values = {"source": source, "subscription": subscription, "number": number}
            return int(connection.execute(queries.EVENT_NUMBER, values).scalar_one())

    def reconciled_until(self, source: str) -> datetime | None:
        """Up to when a source was searched for changes; None when never."""
        with self._engine.begin() as connection:
            return connection.execute(queries.RECONCILED, {"source": source}).scalar()

    def set_reconciled_until(self, source: str, until: datetime) -> None:
        """Note that a source was searched up to `until`; it never goes back."""
        statement = insert(reconciled).values(source=source, until=until)
        with self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["source"],
                    set_={"until": text("greatest(reconciled.until, excluded.until)")},
                )
            )

    def subscription_gaps(self) -> list[Row[Any]]:
        """source, subscription, last_event_number, gaps, missed_events, seen_at of each subscription."""
        with self._engine.begin() as connection:
            return list(connection.execute(subscriptions.select()))

    # --- people ------------------------------------------------------------------------------------------------

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


def _together(ready: Sequence[tuple[int, int]], size: int) -> list[int]:
    """The first rows (id, workers lost on it) that may share a run: of one number of losses; none is skipped."""
    if not ready:
        return []
    losses = ready[0][1]
    company = itertools.takewhile(lambda row: row[1] == losses, ready[: max(1, size >> (2 * losses))])
    return [id_ for id_, _ in company]


def _written_values(written: Written) -> dict[str, Any]:
    return {
        "written": func.coalesce(work.c.written, literal([], JSONB)).op("||")(literal(list(written.references), JSONB)),
        "created": work.c.created + written.created,
        "recognised": work.c.recognised + written.recognised,
    }


def _work_item(row: Row[Any]) -> WorkItem:
    event = EventRow(
        event_id=row.event_id,
        source=row.source,
        fhir_version=row.fhir_version,
        resource_type=row.resource_type,
        resource_id=row.resource_id,
        version_id=row.version_id,
        last_updated=row.last_updated,
        change=row.change,
        patient_key=row.patient_key,
        position=Position(row.topic, row.partition, row.offset),
        received_at=row.received_at,
        durable_at=row.durable_at,
    )
    return WorkItem(
        id=row.id,
        event=event,
        scenario=row.scenario,
        scenario_version=row.scenario_version,
        state=State(row.state),
        attempts=row.attempts,
        lease=row.lease,
        rules_written=row.rules_written_at is not None,
        drafts=row.drafts,
    )
