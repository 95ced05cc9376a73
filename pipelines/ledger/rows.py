"""What the ledger takes and gives: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.ledger.states import State


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Match:
    """A scenario that an event starts."""

    scenario: str
    version: str
    stage: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event as the ledger keeps it: what it is and where its bytes are, never the bytes."""

    event_id: str
    source: str
    fhir_version: str
    resource_type: str
    resource_id: str | None
    version_id: str | None
    last_updated: datetime | None
    change: str
    patient_key: str
    position: Position
    received_at: datetime
    durable_at: datetime


@dataclass(frozen=True, slots=True)
class Incoming:
    """One Kafka record on its way into the ledger: an event with its matches, or poison (`event` None)."""

    position: Position
    event: EventRow | None
    matches: Sequence[Match] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `record` did with a batch of Kafka records; records that an earlier call had recorded are in no sum."""

    events: int
    duplicates: int
    poison: int
    work: int
    missing: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(
            self.events + other.events,
            self.duplicates + other.duplicates,
            self.poison + other.poison,
            self.work + other.work,
            self.missing + other.missing,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One Airflow run as the dispatcher decided on it.

    Attributes:
        run_id: its `dag_run_id` in Airflow.
        scenario: its DAG.
        size: rows bound to it.
        posted: whether Airflow is known to have it.
        age: seconds since Airflow had it, or since it was decided on while that is not known.
    """

    run_id: str
    scenario: str
    size: int
    posted: bool
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One leased piece of work: an event, its scenario, and the lease that every write must carry."""

    id: int
    event: EventRow
    scenario: str
    scenario_version: str
    state: State
    attempts: int
    lease: str
    rules_written: bool
    drafts: Mapping[str, Any] | None

    @property
    def identity(self) -> str:
        """Identity of the result: the same for every try; write-back is conditional on it."""
        return f"{self.event.event_id}:{self.scenario}:{self.scenario_version}"


@dataclass(frozen=True, slots=True)
class Inference:
    """What a model's answer became, ready to be written.

    Attributes:
        drafts: JSON-able outbox content, as `pipelines.write_back` takes it.
        times: hop -> time (context_at, answered_at, guarded_at).
    """

    drafts: Mapping[str, Any]
    times: Mapping[str, datetime]
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    findings: int = 0
    cut_statements: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What the FHIR server said to a transaction: references, and how many of them are new."""

    references: Sequence[str]
    created: int
    recognised: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one scenario.

    Attributes:
        ready: rows that a run could take now.
        oldest: age in seconds of the oldest of them; 0 where there is none.
        waiting: all rows that wait, also those behind another of the same patient, or in a backoff.
        open_runs: runs decided on and not closed.
    """

    scenario: str
    ready: int
    oldest: float
    waiting: int
    open_runs: int


@dataclass(frozen=True, slots=True)
class Account:
    """The sum that must be zero: every record that Kafka accepted is done, dead or in flight.

    Attributes:
        read: Kafka records that the ledger has passed.
        events, duplicates, poison, missing: what they were; missing are offsets that Kafka no longer had.
        matches: pieces of work that those events were to become.
        work: pieces of work by state.
    """

    read: int
    events: int
    duplicates: int
    poison: int
    missing: int
    matches: int
    work: Mapping[State, int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int:
        """Records and pieces of work that are nowhere; anything but 0 is a fault."""
        records = self.read - self.events - self.duplicates - self.poison - self.missing
        return abs(records) + abs(self.matches - sum(self.work.values()))
