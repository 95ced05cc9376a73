"""What a run does to the ledger: rows are claimed under a lease, worked on, and leave it finished or to wait."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, func, literal, text, update
from sqlalchemy.dialects.postgresql import JSONB

from pipelines.errors import IllegalMove, LeaseLost, StepFailed, Waits
from pipelines.failures.policy import POLICIES, Feeds, Policy
from pipelines.ledger import run_queries, taking_queries, version_queries
from pipelines.ledger.breaking import Breaker, BreakerState, Breaking
from pipelines.ledger.moves import INFERRED, WRITTEN, of_inference, of_row, of_written
from pipelines.ledger.on_wire import OnWire, without
from pipelines.ledger.rows import Inference, WorkItem, Written, work_item
from pipelines.ledger.states import State, sources_of
from pipelines.ledger.tables import work
from pipelines.ledger.tallying import alone, with_earlier
from pipelines.ledger.tries import End, entry, tried
from pipelines.telemetry import steps


class Working(Breaking, OnWire):
    """The runner's verbs. Each carries the lease that the worker holds; who lost it changes nothing."""

    def claim(self, run_id: str, lease_seconds: float) -> list[WorkItem]:
        """Take the unfinished rows of a run under a new lease; earlier leases end. `inferred` ones are only written."""
        values = {"run_id": run_id, "lease": uuid.uuid4().hex, "seconds": lease_seconds}
        with self._at_once.connect() as connection:
            rows = connection.execute(taking_queries.CLAIM, values)
            return sorted((work_item(row) for row in rows), key=lambda item: item.id)

    def renew(self, items: Iterable[WorkItem], lease_seconds: float) -> set[int]:
        """Keep the leases of rows that are still being worked on; returns the ids of those that are still held."""
        held = list(items)
        values = {
            "ids": [item.id for item in held],
            "leases": [item.lease for item in held],
            "seconds": lease_seconds,
        }
        with self._at_once.connect() as connection:
            return set(connection.execute(taking_queries.RENEW, values).scalars())

    def superseded(self, items: Sequence[WorkItem]) -> set[int]:
        """Ids of those whose resource has a newer version in the ledger."""
        with self._at_once.connect() as connection:
            return set(connection.execute(version_queries.SUPERSEDED, {"ids": [item.id for item in items]}).scalars())

    def rules_written(self, item: WorkItem, written: Written) -> None:
        """The drafts that rest on rules alone are at the FHIR server.

        Raises:
            LeaseLost: the row is another worker's.
        """
        with self._at_once.connect() as connection:
            self._change(
                connection,
                item,
                State.RUNNING,
                {"rules_written_at": text("now()"), **_written_values(written)},
                keeps_lease=True,
            )

    def inferred(self, item: WorkItem, inference: Inference) -> WorkItem:
        """The drafts are computed and lie in the outbox; the row stays the worker's, to be written.

        Returns:
            the row as it is now.

        Raises:
            LeaseLost: the row is another worker's.
            IllegalMove: only the row's rules were to run: an earlier one of its patient goes first.
        """
        if item.rules_only:
            raise IllegalMove(f"work {item.id} was given for its rules alone; a model is asked when its turn comes")
        journal = entry(item, End.INFERRED)
        if not item.tallied:
            with self._at_once.connect() as connection:
                _move(connection, INFERRED, item, journal, of_inference(inference, alone(inference.tally)))
        else:
            with self._engine.begin() as connection:
                tally = with_earlier(connection, item, inference.tally)
                _move(connection, INFERRED, item, journal, of_inference(inference, tally))
        return replace(item, state=State.INFERRED, drafts=inference.drafts, attempts=0, tries=0)

    def written(self, item: WorkItem, written: Written) -> None:
        """The drafts are at the FHIR server; the outbox is emptied.

        Raises:
            LeaseLost: the row is another worker's.
        """
        with self._at_once.connect() as connection:
            _move(connection, WRITTEN, item, entry(item, End.WRITTEN), of_written(written))

    def stale(self, item: WorkItem) -> None:
        """A newer version came: what was computed is thrown away.

        Raises:
            LeaseLost: the row is another worker's.
        """
        with self._at_once.connect() as connection:
            values = {"finished_at": text("clock_timestamp()"), "drafts": None, **tried(item, End.STALE)}
            self._change(connection, item, State.STALE, values)

    def give_back(self, item: WorkItem) -> None:
        """Nothing was done to a row, and nothing is wrong with it: it waits for another run; drafts are kept.

        Raises:
            LeaseLost: the row is another worker's.
        """
        with self._at_once.connect() as connection:
            self._change(connection, item, _unfinished(item), {"run_id": None, **tried(item, End.HELD_BACK)})

    def give_back_all(self, items: Iterable[WorkItem]) -> int:
        """The same for all rows whose leases these still are; returns how many. None counts an attempt."""
        held = list(items)
        values = {"ids": [item.id for item in held], "leases": [item.lease for item in held]}
        with self._at_once.connect() as connection:
            return connection.execute(run_queries.GIVE_BACK, values).rowcount

    def wait(self, item: WorkItem, reason: Waits) -> None:
        """A row cannot go on now, and nothing failed: it waits for what `reason` names; drafts are kept.

        Raises:
            LeaseLost: the row is another worker's.
        """
        end = End.WAITS if reason.dependency else End.BEHIND
        entry = tried(item, end, for_=reason.dependency)
        values: dict[str, Any] = {"run_id": None, "waits_for": reason.dependency, **entry}
        if reason.rules_ran:
            values["rules_at"] = func.coalesce(work.c.rules_at, text("clock_timestamp()"))
        if reason.dependency is not None:
            values["error"] = str(reason)
        with self._engine.begin() as connection:
            self._change(connection, item, _unfinished(item), values)

    def failed(self, item: WorkItem, failure: StepFailed, *, dependency: str | None = None) -> State:
        """A try failed: the row waits for another, or is parked when it cannot succeed. Returns its new state.

        What that means is told by `pipelines.failures.policy`. Drafts that were computed are kept: only their writing
        is tried again.

        Args:
            item: the row.
            failure: what happened.
            dependency: whose breaker it feeds; None for none.

        Raises:
            LeaseLost: the row is another worker's.
        """
        policy = POLICIES[failure.error_class]
        hop = policy.hop("written" if item.state is State.INFERRED or failure.writing else steps.hop())
        with self._engine.begin() as connection:
            judged = connection.execute(run_queries.JUDGED, {"id": item.id, "dependency": dependency}).one()
            breaker = self._fed(connection, item, failure, dependency)
            down = breaker is not None and breaker.state is not BreakerState.CLOSED
            counted = policy.counted(down=down, served_others=judged.served_others)
            attempts = item.attempts + counted
            too_often = counted and attempts >= (policy.attempts or self._max_attempts)
            too_long = policy.time_limit is not None and judged.failing_for > policy.time_limit.total_seconds()
            target = State.PARKED if too_often or too_long else _unfinished(item)
            values: dict[str, Any] = {
                "run_id": None,
                "attempts": attempts,
                "tries": judged.tries + 1,
                "failing_since": func.coalesce(work.c.failing_since, text("now()")),
                "failed_at": text("clock_timestamp()"),
                "error_class": failure.error_class.value,
                "error": str(failure),
                "waits_for": dependency,
                "not_before": self._not_before(policy, judged.tries + 1, failure.retry_after, breaker),
                **tried(
                    item,
                    End.PARKED if target is State.PARKED else End.FAILED,
                    class_=failure.error_class.value,
                    for_=dependency,
                ),
            }
            if policy.feeds is Feeds.MODEL:  # the model is asked when rules have run
                values["rules_at"] = func.coalesce(work.c.rules_at, text("clock_timestamp()"))
            connection.execute(
                run_queries.COUNT_FAILURE,
                {"scenario": item.scenario, "error_class": failure.error_class.value, "hop": hop, "count": 1},
            )
            self._change(connection, item, target, values)
        return target

    def _fed(
        self, connection: Connection, item: WorkItem, failure: StepFailed, dependency: str | None
    ) -> Breaker | None:
        """What is known of the dependency after this failure."""
        if dependency is None:
            return None
        return self._not_served(
            connection, dependency, failure.error_class.value, item.id, item.run_id, failure.retry_after
        )

    def _not_before(
        self, policy: Policy, tries: int, retry_after: float | None, breaker: Breaker | None
    ) -> ColumnElement[datetime]:
        """When a row may be tried again.

        While its dependency is down it comes after the rows that have not failed: should it be what the dependency
        fails over, it must not be the one that tries for all.
        """
        wait = (policy.pace or self._pace.scaled(policy.slower)).wait(tries, retry_after)
        later = text("now() + make_interval(secs => :wait)").bindparams(wait=wait)
        if breaker is None or breaker.retry_at is None:
            return later  # type: ignore[return-value]
        return text("greatest(now(), :retry_at) + make_interval(secs => :wait)").bindparams(  # type: ignore[return-value]
            retry_at=breaker.retry_at, wait=wait
        )

    def _change(
        self,
        connection: Connection,
        item: WorkItem,
        target: State,
        values: Mapping[str, Any],
        *,
        keeps_lease: bool = False,
    ) -> None:
        allowed = (*sources_of(target), target.value)
        statement = (
            update(work)
            .where(work.c.id == item.id, work.c.lease == item.lease, work.c.state.in_(allowed))
            .values(state=target.value, **without(item.answered), **values)
        )
        if not keeps_lease:
            statement = statement.values(lease=None, lease_until=None)
        if connection.execute(statement).rowcount != 1:
            raise _lost(item)


def _move(connection: Connection, statement: Update, item: WorkItem, journal: str, values: Mapping[str, Any]) -> None:
    """One of `pipelines.ledger.moves`.

    Raises:
        LeaseLost: the row is another worker's.
    """
    if connection.execute(statement, of_row(item, journal) | dict(values)).rowcount != 1:
        raise _lost(item)


def _lost(item: WorkItem) -> LeaseLost:
    return LeaseLost(f"work {item.id} is no longer leased to this worker; nothing was changed")


def _unfinished(item: WorkItem) -> State:
    """Where a row waits that leaves its run: with drafts, to be written only."""
    return State.INFERRED if item.state is State.INFERRED else State.WAITING


def _written_values(written: Written) -> dict[str, Any]:
    return {
        "written": func.coalesce(work.c.written, literal([], JSONB)).op("||")(literal(list(written.references), JSONB)),
        "created": work.c.created + written.created,
        "recognised": work.c.recognised + written.recognised,
    }
