"""A ledger of the test's own, and records to put into it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from pipelines.ledger import EventRow, Incoming, Ledger, Match, Position

START = datetime(2026, 1, 1, tzinfo=UTC)
Make = Callable[..., Incoming]


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    """A ledger whose backoffs last no time."""
    return Ledger(ledger_engine, max_attempts=3, backoff=1e-9, backoff_cap=1e-9)


@pytest.fixture
def make() -> Make:
    """Makes one Kafka record: `make(offset)`, with whatever else matters to the test."""

    def make_(
        offset: int,
        *,
        patient: str = "p",
        resource: str | None = None,
        version: str | None = "1",
        updated: int | None = 0,
        scenarios: tuple[str, ...] = ("in_visit.note",),
        event_id: str | None = None,
        partition: int = 0,
        change: str = "written",
    ) -> Incoming:
        position = Position("events", partition, offset)
        resource = resource or f"r{partition}-{offset}"
        event = EventRow(
            event_id=event_id or f"{resource}/{version}/{updated}/{offset}/{partition}",
            source="hospital",
            fhir_version="R4",
            resource_type="Encounter",
            resource_id=resource,
            version_id=version,
            last_updated=None if updated is None else START + timedelta(seconds=updated),
            change=change,
            patient_key=patient,
            position=position,
            received_at=START,
            durable_at=START + timedelta(milliseconds=offset),
        )
        return Incoming(position, event, tuple(Match(s, "1", s.split(".")[0]) for s in scenarios))

    return make_


@pytest.fixture
def rows(ledger_engine: Engine) -> Callable[[], dict[int, tuple[str, str | None]]]:
    """Looks at all rows: offset -> (state, run id)."""

    def look() -> dict[int, tuple[str, str | None]]:
        query = text('SELECT e."offset", w.state, w.run_id FROM work w JOIN events e USING (event_id) ORDER BY w.id')
        with ledger_engine.begin() as connection:
            return {row[0]: (row[1], row[2]) for row in connection.execute(query)}

    return look
