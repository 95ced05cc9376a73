"""What a run does to the ledger: rows are claimed under a lease, worked on, and leave it finished or to wait."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, literal, text, update
from sqlalchemy.dialects.postgresql import JSONB

from pipelines.errors import LeaseLost, StepFailed
from pipelines.ledger import queries
from pipelines.ledger.rows import EventRow, Inference, Position, WorkItem, Written
from pipelines.ledger.states import State, sources_of
from pipelines.ledger.tables import work
from pipelines.ledger.verbs import Verbs


class Working(Verbs):
    """The runner's verbs. Each carries the lease that the worker holds; who lost it changes nothing."""

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
