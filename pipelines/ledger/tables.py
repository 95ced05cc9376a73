"""The ledger's tables (PostgreSQL only). Migrations under `migrations/` create exactly these; a test compares them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()
_TIME = DateTime(timezone=True)

#: How far each partition was read, and what became of every record in it:
#: next_offset - base_offset + reread = events + duplicates + poison + missing, and matches (with those of `replays`) =
#: rows of work ever made, or something is unaccounted for. `reread` counts the poison that a person had read again and
#: that was an event then: no number here ever goes back.
progress = Table(
    "progress",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("base_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False, server_default=text("0")),
    Column("duplicates", BigInteger, nullable=False, server_default=text("0")),
    Column("poison", BigInteger, nullable=False, server_default=text("0")),
    Column("missing", BigInteger, nullable=False, server_default=text("0")),
    Column("matches", BigInteger, nullable=False, server_default=text("0")),
    Column("reread", BigInteger, nullable=False, server_default=text("0")),
    # raised by each rewind: what was read before one is not taken after it
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    # whether the broker has ever acknowledged an offset of our group in this epoch
    Column("committed_once", Boolean, nullable=False, server_default=text("false")),
)

#: One row per event identity, however often it was delivered.
events = Table(
    "events",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("fhir_version", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text),
    Column("version_id", Text),
    Column("version_number", BigInteger),
    Column("last_updated", _TIME),
    Column("change", Text, nullable=False),
    Column("patient_key", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("received_at", _TIME, nullable=False),
    Column("durable_at", _TIME, nullable=False),
    Column("matched_at", _TIME, nullable=False),
    Column("matches", SmallInteger, nullable=False),
    Column("traceparent", Text),
    Column("tracestate", Text),
    Index("events_resource", "source", "resource_type", "resource_id"),
    Index("events_in_order", "durable_at", "partition", "offset"),
)

#: One row per (event, scenario, scenario version), and one more for each replay of it: finished rows never change.
work = Table(
    "work",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Text, ForeignKey("events.event_id"), nullable=False),
    Column("scenario", Text, nullable=False),
    Column("scenario_version", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("patient_key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("run_id", Text),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("not_before", _TIME, nullable=False),
    Column("lease", Text),
    Column("lease_until", _TIME),
    Column("error_class", Text),
    Column("error", Text),
    # times of every hop; the first try's, except from started_at on, where the try that succeeded counts
    Column("received_at", _TIME, nullable=False),
    Column("durable_at", _TIME, nullable=False),
    Column("matched_at", _TIME, nullable=False),
    Column("dispatched_at", _TIME),
    Column("started_at", _TIME),
    Column("rules_written_at", _TIME),
    Column("context_at", _TIME),
    Column("answered_at", _TIME),
    Column("guarded_at", _TIME),
    Column("written_at", _TIME),
    Column("finished_at", _TIME),
    # what the model did
    Column("model", Text),
    Column("prompt_tokens", Integer, nullable=False, server_default=text("0")),
    Column("completion_tokens", Integer, nullable=False, server_default=text("0")),
    Column("model_seconds", Double, nullable=False, server_default=text("0")),
    Column("findings", SmallInteger, nullable=False, server_default=text("0")),
    Column("cut_statements", SmallInteger, nullable=False, server_default=text("0")),
    # of all tries together, as `rows.Tally` has it
    Column("asked", JSONB),
    Column("verdicts", JSONB),
    Column("counted", JSONB),
    # the outbox: drafts computed and not yet written, and afterwards what the FHIR server called them
    Column("drafts", JSONB),
    Column("written", JSONB),
    Column("created", SmallInteger, nullable=False, server_default=text("0")),
    Column("recognised", SmallInteger, nullable=False, server_default=text("0")),
    Column("folded", Boolean, nullable=False, server_default=text("false")),
    Column("replay", Integer, nullable=False, server_default=text("0")),  # `replays.id`; 0 for the event's own
    Column("tried_in", ARRAY(Text)),  # the runs that it was in, the last of them at most
    # why it waits: `source` tells whose FHIR server it needs; failures in a row, whether they count as attempts or not
    Column("source", Text),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    Column("failing_since", _TIME),
    Column("failed_at", _TIME),
    Column("waits_for", Text),  # a dependency in `breakers`
    Column("rules_at", _TIME),  # its rules have run, and red flags are written
    Column("rules_only", Boolean, nullable=False, server_default=text("false")),  # in its run, for it is not its turn
    Column("late", Boolean, nullable=False, server_default=text("false")),  # its deadline passed, and that is counted
    Column("journal", JSONB),  # what became of each try: `pipelines.ledger.tries`
    Column("on_wire", ARRAY(Text)),  # transactions that left, or were to, and that no answer is known to
    Column("model_version", Text),  # of the weights that answered
    Column("approval", Text),  # the Task at the FHIR server that asks a person to decide on the drafts
    UniqueConstraint("event_id", "scenario", "scenario_version", "replay", name="work_identity"),
    Index("work_run", "run_id"),
    Index(
        "work_open",
        "state",
        "scenario",
        "patient_key",
        postgresql_where=text("state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked')"),
    ),
    Index(
        "work_to_fold",
        "id",
        postgresql_where=text("NOT folded AND state IN ('written', 'stale', 'discarded')"),
    ),
)

#: What a person has decided on the drafts of an identity, replays included: the first verdict, and no text of the Task.
decisions = Table(
    "decisions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("work_id", BigInteger, ForeignKey("work.id"), nullable=False),
    Column("event_id", Text, nullable=False),
    Column("scenario", Text, nullable=False),
    Column("scenario_version", Text, nullable=False),
    Column("verdict", Text, nullable=False),  # `fhir_adapters.decision.Verdict`
    Column("who", Text),  # reference to the Practitioner; of a withdrawal nobody need be named
    Column("decided_at", _TIME, nullable=False),
    Column("received_at", _TIME, nullable=False),
    Column("folded", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("event_id", "scenario", "scenario_version", name="decisions_identity"),
    Index("decisions_to_fold", "id", postgresql_where=text("NOT folded")),
)

#: One row per Airflow run that was decided on, before it is asked for.
runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("scenario", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("decided_at", _TIME, nullable=False),
    Column("posted_at", _TIME),
    Column("closed_at", _TIME),
    Column("outcome", Text),
    Column("held", JSONB),  # what kept the scenario waiting before it: `pipelines.dispatcher.holdups`
    # its first task has claimed rows; the process that stays for it, until when unless it says so again, before whom it
    # goes, how many rows it has taken since, and whether the dispatcher has told it to take no more
    Column("started_at", _TIME),
    Column("stayer", Text),
    Column("stays_until", _TIME),
    Column("rank", SmallInteger, nullable=False, server_default=text("0")),
    Column("taken", Integer, nullable=False, server_default=text("0")),
    Column("withdrawn", Boolean, nullable=False, server_default=text("false")),
    Index("runs_open", "scenario", postgresql_where=text("closed_at IS NULL")),
)

#: Failures of single tries, by class and hop of the way; a counter that never goes back.
failures = Table(
    "failures",
    metadata,
    Column("scenario", Text, primary_key=True),
    Column("error_class", Text, primary_key=True),
    Column("hop", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

#: What is switched off: kind "everything" (name ""), "scenario" or "model".
switches = Table(
    "switches",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("since", _TIME, nullable=False),
)

#: Each time that somebody has turned a switch, either way. No row is ever changed.
switchings = Table(
    "switchings",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("off", Boolean, nullable=False),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

#: The last event number seen of each subscription (FHIR Subscriptions: eventsSinceSubscriptionStart).
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("subscription", Text, primary_key=True),
    Column("last_event_number", BigInteger, nullable=False),
    Column("seen_at", _TIME, nullable=False),
    Column("gaps", BigInteger, nullable=False, server_default=text("0")),
    Column("missed_events", BigInteger, nullable=False, server_default=text("0")),
)

#: Up to when each source was searched for changes that nobody notified.
reconciled = Table(
    "reconciled",
    metadata,
    Column("source", Text, primary_key=True),
    Column("until", _TIME, nullable=False),
)

#: Finished rows folded into metric samples: a scrape costs the same however many rows there are.
samples = Table(
    "samples",
    metadata,
    Column("name", Text, primary_key=True),
    Column("labels", Text, primary_key=True),
    Column("value", Double, nullable=False),
)

#: Kafka records that are no events: where each stands, why, and where its copy is. No row is ever deleted.
poison = Table(
    "poison",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("record_at", _TIME, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("copy_topic", Text),
    Column("copy_partition", Integer),
    Column("copy_offset", BigInteger),
    Column("state", Text, nullable=False, server_default=text("'open'")),  # open, recorded (as an event), discarded
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    Column("note", Text),
    UniqueConstraint("topic", "partition", "offset", "record_at", name="poison_position"),
    Index("poison_open", "id", postgresql_where=text("state = 'open'")),
)

#: Each time that somebody had events run again.
replays = Table(
    "replays",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("filter", JSONB, nullable=False),
    Column("rows", BigInteger, nullable=False, server_default=text("0")),
    Column("finished_at", _TIME),
)

#: Who was shown patient data by a command, and why; written before it is shown.
disclosures = Table(
    "disclosures",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("by", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

#: What is known of each dependency: one row as soon as it was needed (`pipelines.runner.breaker`).
breakers = Table(
    "breakers",
    metadata,
    Column("dependency", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default=text("'closed'")),  # closed, open, half_open
    Column("succeeded_at", _TIME),
    # since the last success: how often it failed, whether for several pieces of work, and for which last
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("several", Boolean, nullable=False, server_default=text("false")),
    Column("last_work", BigInteger),
    Column("error_class", Text),
    Column("opened_at", _TIME),
    Column("openings", SmallInteger, nullable=False, server_default=text("0")),
    Column("retry_at", _TIME),
    # half-open: the one that tries, and until when it may
    Column("probe", Text),
    Column("probe_until", _TIME),
)
