"""What the ledger takes and gives: plain frozen values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fhir_adapters.decision import Verdict
from fhir_adapters.trace_context import TraceContext, derived, parse
from pipelines.errors import PoisonReason
from pipelines.ledger.states import State

#: When a record was written that could not be read at all.
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


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
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def trace(self) -> TraceContext | None:
        """Its trace context; None for an event that came before there were any."""
        return parse(self.traceparent, self.tracestate)

    @classmethod
    def of(cls, row: Any) -> EventRow:
        """From a row that has the columns of `events`."""
        return cls(
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
            traceparent=row.traceparent,
            tracestate=row.tracestate,
        )


@dataclass(frozen=True, slots=True)
class Poison:
    """Why a Kafka record is no event.

    Attributes:
        reason: of the closed set.
        record_at: the record's own time by the broker; with the position it tells it from the record of another topic
            of that name.
        copy: where its copy in the dead-letter topic stands; None where there is none.
    """

    reason: PoisonReason = PoisonReason.UNREADABLE
    record_at: datetime = UNKNOWN_TIME
    copy: Position | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has decided on the drafts of a piece of work, as a Task says it.

    Attributes:
        identity: of the work (`WorkItem.identity`); None where the Task names none.
        verdict: see `fhir_adapters.decision.Verdict`.
        who: reference to the person; None where nobody is named.
        decided_at: timezone-aware.
    """

    identity: str | None
    verdict: Verdict
    who: str | None
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Incoming:
    """One Kafka record on its way into the ledger: an event with its matches, or `poison` (`event` None).

    An event that is a person's decision has it in `decision`, and no matches.
    """

    position: Position
    event: EventRow | None
    matches: Sequence[Match] = ()
    poison: Poison = Poison()
    decision: Decision | None = None


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
class Standing:
    """How far the ledger has read a partition.

    Attributes:
        next_offset: the first offset that is not in the ledger; None for a partition never read.
        epoch: raised by each rewind; what was read in an earlier one is not taken any more.
        committed_once: whether the broker has ever acknowledged an offset of our group in this epoch.
    """

    next_offset: int | None = None
    epoch: int = 0
    committed_once: bool = False


def trace_of_run(run_id: str, share: float = 0.0) -> TraceContext:
    """The trace context of a run that many events share; the same in every process that knows its id."""
    return derived(hashlib.sha256(run_id.encode()).hexdigest(), share)


@dataclass(frozen=True, slots=True)
class Run:
    """One Airflow run as the dispatcher decided on it.

    Attributes:
        run_id: its `dag_run_id` in Airflow.
        scenario: its DAG.
        size: rows bound to it.
        posted: whether Airflow is known to have it.
        age: seconds since Airflow had it, or since it was decided on while that is not known.
        taken: rows that it has taken while it stayed.
        staying: whether its process has said a moment ago that it stays.
        traces: the traceparents of its events, as far as they were asked for.
    """

    run_id: str
    scenario: str
    size: int
    posted: bool
    age: float = 0.0
    traces: tuple[str, ...] = ()
    taken: int = 0
    staying: bool = False

    @property
    def alone(self) -> TraceContext | None:
        """The trace context of its event, where it is a single one that has one."""
        return parse(self.traces[0]) if len(self.traces) == self.size == 1 else None

    def trace(self, share: float = 0.0) -> TraceContext:
        """Its trace context: of a single event that one's, else one that is made of the run's id."""
        return self.alone or trace_of_run(self.run_id, share)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One leased piece of work: an event, its scenario, and the lease that every write must carry.

    Attributes:
        tries: failures of this step in a row, whether they counted as attempts or not.
        rules_ran: whether an earlier try has run its rules, and written what cannot wait for a model.
        rules_only: whether it is not its turn yet: an earlier one of its patient has to wait, its rules have not.
        tallied: whether earlier tries left something to add to.
        answered: marks of its transactions that the FHIR server has answered; the next statement about the row takes
            them off (`pipelines.ledger.on_wire`).
    """

    id: int
    event: EventRow
    scenario: str
    scenario_version: str
    state: State
    attempts: int
    lease: str
    rules_written: bool
    drafts: Mapping[str, Any] | None
    replay: int = 0
    run_id: str = ""
    tries: int = 0
    rules_ran: bool = False
    rules_only: bool = False
    tallied: bool = True
    answered: set[str] = field(default_factory=set, compare=False)

    @property
    def identity(self) -> str:
        """Identity of the result: the same for every try and every replay; write-back is conditional on it."""
        return f"{self.event.event_id}:{self.scenario}:{self.scenario_version}"


@dataclass(frozen=True, slots=True)
class Tally:
    """What was done on the way of a try, also of one that failed; JSON-able, and added up over tries.

    Attributes:
        asked: model -> "requests", "prompt_tokens", "completion_tokens", "seconds", "cost" and "currency".
        verdicts: guard -> code -> action -> how many.
        counted: name of a plugin's counter -> labels as canonical JSON -> how much.
    """

    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    counted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inference:
    """What a model's answer became, ready to be written.

    Attributes:
        drafts: JSON-able outbox content, as `pipelines.runner.write_back` takes it.
        times: hop -> time (context_at, answered_at, guarded_at).
        model: name of what answered; of a panel all names, joined by "+".
        model_version: of its weights; of a panel of each.
        tally: of this try.
    """

    drafts: Mapping[str, Any]
    times: Mapping[str, datetime]
    model: str | None = None
    model_version: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    findings: int = 0
    cut_statements: int = 0
    tally: Tally = Tally()


@dataclass(frozen=True, slots=True)
class Written:
    """What the FHIR server said to a transaction: references, and how many of them are new.

    Attributes:
        references, created, recognised: of the drafts.
        approval: reference to the Task that asks a person to decide on them, which is no draft; None without one.
    """

    references: Sequence[str]
    created: int
    recognised: int
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one scenario.

    Attributes:
        ready: rows that a run could take now.
        oldest: age in seconds of the oldest of them; 0 where there is none.
        waiting: all rows that wait, also those behind another of the same patient, or in a backoff.
        open_runs: runs decided on and not closed.
        staying: those of them that stay, and take rows themselves.
        for_a_person: rows of `waiting` that stand behind a dead letter: a person's decision lets them go on.
    """

    scenario: str
    ready: int
    oldest: float
    waiting: int
    open_runs: int
    staying: int = 0
    for_a_person: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """The sum that must be zero: every record that Kafka accepted is done, dead or in flight.

    Attributes:
        read: Kafka records that the ledger has passed; poison that was read again and was an event counts twice.
        events, duplicates, poison, missing: what they were; missing are offsets that Kafka no longer had.
        matches: pieces of work that those events were to become, replays included.
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


def work_item(row: Any) -> WorkItem:
    """From a row that the claiming statements give."""
    return WorkItem(
        id=row.id,
        event=EventRow.of(row),
        scenario=row.scenario,
        scenario_version=row.scenario_version,
        state=State(row.state),
        attempts=row.attempts,
        lease=row.lease,
        rules_written=row.rules_written_at is not None,
        drafts=row.drafts,
        replay=row.replay,
        run_id=row.run_id,
        tries=row.tries,
        rules_ran=row.rules_at is not None,
        rules_only=row.rules_only,
        tallied=row.tallied,
    )
