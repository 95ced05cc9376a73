"""What persons decide on drafts, noted in the transaction of the event that tells of it: the first verdict counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row

from fhir_adapters.decision import Verdict
from monitoring import metrics
from monitoring.metrics import NotTaken
from pipelines.ledger import counting_queries
from pipelines.ledger import decided_queries as queries
from pipelines.ledger.rows import Decision, EventRow, Incoming


def record_decisions(connection: Connection, incoming: Iterable[Incoming]) -> None:
    """Note the decisions among events that are new to the ledger; what is not taken is counted by why.

    Args:
        connection: in the transaction that writes the events.
        incoming: events, each told of for the first time.
    """
    told = [(item.event, item.decision) for item in incoming if item.event is not None and item.decision is not None]
    told.sort(key=lambda one: one[1].identity or "")  # one lock order for all; the first of each stays first
    reasons = Counter(reason for one in told if (reason := _record(connection, *one)) is not None)
    if reasons:
        counts = sorted(reasons.items())
        values = {
            "names": [metrics.DECISIONS_NOT_TAKEN.name] * len(counts),
            "labels": [f'{{"reason":"{reason}"}}' for reason, _ in counts],
            "values": [float(count) for _, count in counts],
        }
        connection.execute(counting_queries.ADD_SAMPLES, values)


def decisions_on(engine: Engine, event_ids: Sequence[str]) -> list[Row[Any]]:
    """event_id, scenario, scenario_version, verdict, decided_at of each decision on the drafts of these events."""
    with engine.connect() as connection:
        return list(connection.execute(queries.OF_EVENTS, {"event_ids": list(event_ids)}))


def _record(connection: Connection, event: EventRow, decision: Decision) -> NotTaken | None:
    """Why it is not taken; None where it is, or where it says once more what is known."""
    key = _key(decision.identity)
    found = connection.execute(queries.WORK_AND_VERDICT, {**key, "source": event.source}).first() if key else None
    if key is None or found is None:
        return NotTaken.UNKNOWN
    before = found.verdict
    if before is None:
        if decision.who is None and decision.verdict is not Verdict.WITHDRAWN:
            return NotTaken.UNNAMED
        values = {
            **key,
            "work_id": found.id,
            "verdict": decision.verdict.value,
            "who": decision.who,
            "decided_at": decision.decided_at,
            "received_at": event.received_at,
        }
        if connection.execute(queries.DECIDE, values).first() is not None:
            return None
        before = connection.execute(queries.WORK_AND_VERDICT, {**key, "source": event.source}).one().verdict
    return None if before == decision.verdict else NotTaken.DECIDED_BEFORE


def _key(identity: str | None) -> Mapping[str, str] | None:
    """The parts of an identity; see `WorkItem.identity`."""
    parts = identity.split(":", 2) if identity else []
    return dict(zip(("event_id", "scenario", "version"), parts, strict=True)) if len(parts) == 3 else None
