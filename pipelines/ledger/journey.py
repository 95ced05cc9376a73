"""One event's way through the ledger: what was noted of it and of each piece of work that it started; read-only.

Neither the patient nor the patient's key is in it, nor any text of an error: ids, names of closed sets, and times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from pipelines.errors import LedgerError
from pipelines.ledger import journey_queries as queries
from pipelines.ledger import overview_queries
from pipelines.ledger.states import UNFINISHED, State

#: Events that a run may have.
MOST = 1000
_RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}")
_SHORTEST = 6


@dataclass(frozen=True, slots=True)
class RunRow:
    """An Airflow run that a piece of work was in."""

    run_id: str
    size: int
    decided_at: datetime
    posted_at: datetime | None
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier piece of work of the same patient in the same scenario, and until when it was in the way."""

    work: int
    state: State
    until: datetime


@dataclass(frozen=True, slots=True)
class Way:
    """One piece of work.

    Attributes:
        at: hop -> when, of the hops that it has come to.
        journal: its tries, see `pipelines.ledger.tries`.
        runs: that it was in, in their order.
        held: [reason, from, to] (milliseconds since 1970) of what held its scenario up, see `holdups`.
        earlier: work that went first.
        decision: what a person has decided on its drafts (`fhir_adapters.decision.Verdict`), and when; never who.
        waits: why it waits now, as `overview.Why` has it, and what for; None where it does not.
    """

    id: int
    scenario: str
    version: str
    stage: str
    state: State
    run_id: str | None
    attempts: int
    replay: int
    error_class: str | None
    model: str | None
    at: Mapping[str, datetime]
    journal: Sequence[Mapping[str, Any]] = ()
    runs: Sequence[RunRow] = ()
    held: Sequence[Sequence[Any]] = ()
    earlier: Sequence[Earlier] = ()
    decision: tuple[str, datetime] | None = None
    waits: tuple[str, str, datetime | None] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class Journey:
    """One event.

    Attributes:
        place: where its bytes are: topic[partition]@offset.
        trace_id: of its trace context; None for an event that came before there were any.
        now: by the ledger's clock, when it was read.
    """

    event_id: str
    source: str
    resource_type: str
    change: str
    place: str
    trace_id: str | None
    received_at: datetime
    durable_at: datetime
    matched_at: datetime
    now: datetime
    ways: Sequence[Way] = field(default_factory=tuple)


_HOPS = ("received", "durable", "matched", "started", "rules_written", "context", "answered", "guarded", "written")


def find(engine: Engine, name: str) -> list[str]:
    """The events that a name means: an identity or its first digits, a trace id, a piece of work, or a run.

    Raises:
        LedgerError: it means none, or it is no such name.
    """
    with engine.connect() as connection:
        if _RUN.fullmatch(name):
            found = connection.execute(queries.EVENTS_OF_RUN, {"run_id": name, "most": MOST}).scalars().all()
        elif name.isascii() and name.isdecimal() and len(name) < 18:
            found = connection.execute(queries.EVENTS_OF_WORK, {"id": int(name)}).scalars().all()
        elif re.fullmatch(r"[0-9a-f]+", name) and len(name) >= _SHORTEST:
            found = connection.execute(queries.EVENTS_LIKE, {"begin": name, "most": MOST}).scalars().all()
        else:
            raise LedgerError(
                f"{name[:80]!r} names no event: give its identity or six or more of its first digits, a trace id, the"
                " number of a piece of work, or a run's id; `careloom trace --last` shows the newest"
            )
    if not found:
        raise LedgerError(f"the ledger knows no event, work or run {name}; `careloom trace --last` shows the newest")
    return list(found)


def last(engine: Engine, scenario: str | None = None) -> str | None:
    """The newest event that has started something, or this scenario; None where there is none."""
    with engine.connect() as connection:
        found: str | None = connection.execute(queries.LAST, {"scenario": scenario}).scalar()
        return found


def slowest(engine: Engine, seconds: float, scenario: str | None = None) -> str | None:
    """Of the events of the last `seconds` the one that took longest to a draft, or waits longest; None without any."""
    with engine.connect() as connection:
        found: str | None = connection.execute(queries.SLOWEST, {"seconds": seconds, "scenario": scenario}).scalar()
        return found


def journey(engine: Engine, event_id: str) -> Journey:
    """All that the ledger has noted of an event, in one REPEATABLE READ transaction.

    Raises:
        LedgerError: there is no such event.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        event = connection.execute(queries.EVENT, {"event_id": event_id}).first()
        if event is None:
            raise LedgerError(f"the ledger knows no event {event_id}")
        rows = connection.execute(queries.WORK, {"event_id": event_id}).all()
        ways = [_way(connection, row, event.now) for row in rows]
    return Journey(
        event_id=event.event_id,
        source=event.source,
        resource_type=event.resource_type,
        change=event.change,
        place=f"{event.topic}[{event.partition}]@{event.offset}",
        trace_id=event.traceparent[3:35] if event.traceparent else None,
        received_at=event.received_at,
        durable_at=event.durable_at,
        matched_at=event.matched_at,
        now=event.now,
        ways=ways,
    )


def _way(connection: Connection, row: Any, now: datetime) -> Way:
    runs = connection.execute(queries.RUNS, {"run_ids": sorted({*(row.tried_in or ()), row.run_id} - {None})}).all()
    until = (
        max((run.decided_at for run in runs), default=now) if row.run_id or State(row.state) not in UNFINISHED else now
    )
    span = {"scenario": row.scenario, "since": row.matched_at, "until": until}
    earlier = {**span, "patient_key": row.patient_key, "id": row.id}
    waits = connection.execute(overview_queries.WAIT_OF, {"id": row.id}).first()
    return Way(
        id=row.id,
        scenario=row.scenario,
        version=row.scenario_version,
        stage=row.stage,
        state=State(row.state),
        run_id=row.run_id,
        attempts=row.attempts,
        replay=row.replay,
        error_class=row.error_class,
        model=row.model,
        at={hop: at for hop in _HOPS if (at := getattr(row, f"{hop}_at")) is not None}
        | ({"finished": row.finished_at} if row.finished_at else {}),
        journal=tuple(row.journal or ()),
        runs=[RunRow(r.run_id, r.size, r.decided_at, r.posted_at, r.closed_at) for r in runs],
        held=[one for held in connection.execute(queries.HELD, span).scalars() for one in held],
        earlier=[Earlier(e.id, State(e.state), e.until) for e in connection.execute(queries.BEFORE, earlier)],
        decision=None if row.verdict is None else (row.verdict, row.decided_at),
        waits=None if waits is None else (waits.why, waits.what or "", waits.until),
    )
