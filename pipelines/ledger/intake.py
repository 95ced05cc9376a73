"""Kafka records into rows: exact, in one transaction, however often the same records come."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pipelines.errors import ReadBeforeRewind
from pipelines.ledger import counting_queries, staying_queries
from pipelines.ledger.decided import record_decisions
from pipelines.ledger.rows import Decision, EventRow, Incoming, Match, Position, Recorded
from pipelines.ledger.states import State
from pipelines.ledger.tables import events, poison, progress, work

#: The counter of poison by reason; its name and labels are those of `monitoring.metrics.POISON`.
_POISON_COUNTER = "careloom_poison_records_total"


@dataclass(slots=True)
class _Tally:
    """What one partition's records were."""

    next_offset: int
    poisoned: list[Incoming] = field(default_factory=list)
    fresh: list[Incoming] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0
    poison: int = 0
    missing: int = 0
    matches: int = 0


def record(
    connection: Connection,
    batch: Sequence[Incoming],
    matched_at: datetime,
    epochs: Mapping[tuple[str, int], int] | None = None,
) -> Recorded:
    """Write a batch of Kafka records, each exactly once.

    Records that lie before the partition's `next_offset` were recorded by an earlier call and are passed over. An
    event whose identity is known is counted as a duplicate. A jump in the offsets is counted as missing.

    Args:
        connection: in a transaction; the caller commits it, and only then the Kafka offset.
        batch: records in the order of their offsets, of any partitions.
        matched_at: when the scenarios were matched.
        epochs: (topic, partition) -> epoch in which its records were read (`Standing.epoch`); None does not look.

    Raises:
        ReadBeforeRewind: one of the partitions was rewound since. The offsets of a broker that has lost its data name
            other records now: taken as they are, they would pass over those for ever.
    """
    by_partition: dict[tuple[str, int], list[Incoming]] = defaultdict(list)
    for item in batch:
        by_partition[item.position.topic, item.position.partition].append(item)
    total = Recorded(0, 0, 0, 0)
    poisoned: list[Incoming] = []
    fresh: list[Incoming] = []
    for topic, partition in sorted(by_partition):  # one lock order for all dispatchers
        epoch = None if epochs is None else epochs.get((topic, partition), 0)
        tally = _record_partition(connection, by_partition[topic, partition], matched_at, epoch)
        total += Recorded(tally.events, tally.duplicates, tally.poison, tally.matches, tally.missing)
        poisoned += tally.poisoned
        fresh += tally.fresh
    record_decisions(connection, fresh)
    _insert_poison(connection, poisoned)  # last, as its counters are shared by all partitions
    return total


def record_again(
    connection: Connection,
    event: EventRow,
    matches: Sequence[Match],
    of: Position,
    matched_at: datetime,
    decision: Decision | None = None,
) -> Recorded:
    """Poison that a person had read again turned out to be an event: write it, exactly once.

    Args:
        connection: in a transaction that holds the poison's row.
        event: with the position at which its bytes can be had.
        matches: the scenarios that it starts.
        of: the poison's own position, in whose partition's sum it is counted.
        matched_at: when the scenarios were matched.
        decision: a person's, where it is one.
    """
    incoming = Incoming(event.position, event, matches, decision=decision)
    known = not _insert_events(connection, {event.event_id: incoming}, matched_at)
    made = 0 if known else _insert_work(connection, [incoming], matched_at)
    record_decisions(connection, () if known else (incoming,))
    connection.execute(
        update(progress)
        .where((progress.c.topic == of.topic) & (progress.c.partition == of.partition))
        .values(
            reread=progress.c.reread + 1,
            events=progress.c.events + int(not known),
            duplicates=progress.c.duplicates + int(known),
            matches=progress.c.matches + made,
        )
    )
    return Recorded(events=int(not known), duplicates=int(known), poison=0, work=made)


def _record_partition(connection: Connection, items: list[Incoming], matched_at: datetime, epoch: int | None) -> _Tally:
    first = items[0].position
    where = (progress.c.topic == first.topic) & (progress.c.partition == first.partition)
    connection.execute(
        insert(progress)
        .values(topic=first.topic, partition=first.partition, base_offset=first.offset, next_offset=first.offset)
        .on_conflict_do_nothing()
    )
    known = connection.execute(select(progress.c.next_offset, progress.c.epoch).where(where).with_for_update()).one()
    if epoch not in (None, known.epoch):
        raise ReadBeforeRewind(
            f"{first.topic}[{first.partition}] was rewound since offset {first.offset} was read; it is read anew"
        )
    tally = _Tally(known.next_offset)
    fresh: dict[str, Incoming] = {}
    for item in items:
        offset = item.position.offset
        if offset < tally.next_offset:
            continue
        tally.missing += offset - tally.next_offset
        tally.next_offset = offset + 1
        if item.event is None:
            tally.poison += 1
            tally.poisoned.append(item)
        elif item.event.event_id in fresh:
            tally.duplicates += 1
        else:
            fresh[item.event.event_id] = item
    inserted = _insert_events(connection, fresh, matched_at)
    tally.events = len(inserted)
    tally.duplicates += len(fresh) - len(inserted)
    tally.fresh = [fresh[event_id] for event_id in fresh if event_id in inserted]
    tally.matches = _insert_work(connection, tally.fresh, matched_at)
    connection.execute(
        update(progress)
        .where(where)
        .values(
            next_offset=tally.next_offset,
            events=progress.c.events + tally.events,
            duplicates=progress.c.duplicates + tally.duplicates,
            poison=progress.c.poison + tally.poison,
            missing=progress.c.missing + tally.missing,
            matches=progress.c.matches + tally.matches,
        )
    )
    return tally


def _insert_events(connection: Connection, fresh: dict[str, Incoming], matched_at: datetime) -> set[str]:
    if not fresh:
        return set()
    values = [
        {
            "event_id": event.event_id,
            "source": event.source,
            "fhir_version": event.fhir_version,
            "resource_type": event.resource_type,
            "resource_id": event.resource_id,
            "version_id": event.version_id,
            "version_number": _number(event),
            "last_updated": event.last_updated,
            "change": event.change,
            "patient_key": event.patient_key,
            "topic": event.position.topic,
            "partition": event.position.partition,
            "offset": event.position.offset,
            "received_at": event.received_at,
            "durable_at": event.durable_at,
            "traceparent": event.traceparent,
            "tracestate": event.tracestate,
            "matched_at": matched_at,
            "matches": len(item.matches),
        }
        for item in fresh.values()
        if (event := item.event) is not None
    ]
    statement = insert(events).on_conflict_do_nothing(index_elements=["event_id"]).returning(events.c.event_id)
    return set(connection.execute(statement, values).scalars())


def _insert_work(connection: Connection, items: list[Incoming], matched_at: datetime) -> int:
    values = [
        {
            "event_id": item.event.event_id,
            "scenario": match.scenario,
            "scenario_version": match.version,
            "stage": match.stage,
            "patient_key": item.event.patient_key,
            "source": item.event.source,
            "state": State.WAITING.value,
            "received_at": item.event.received_at,
            "durable_at": item.event.durable_at,
            "matched_at": matched_at,
        }
        for item in items
        if item.event is not None
        for match in item.matches
    ]
    if values:
        connection.execute(insert(work).values(not_before=func.now()), values)
        told = sorted({match.scenario for item in items for match in item.matches})
        connection.execute(staying_queries.NOTIFY, {"scenarios": told})  # heard when the transaction is there
    return len(values)


def _insert_poison(connection: Connection, items: Sequence[Incoming]) -> None:
    """A row each, but for those that were read before (the broker lost its end, and all is read again)."""
    if not items:
        return
    values = [
        {
            "topic": item.position.topic,
            "partition": item.position.partition,
            "offset": item.position.offset,
            "record_at": item.poison.record_at,
            "reason": item.poison.reason.value,
            "copy_topic": copy.topic if copy else None,
            "copy_partition": copy.partition if copy else None,
            "copy_offset": copy.offset if copy else None,
        }
        for item in items
        for copy in [item.poison.copy]
    ]
    connection.execute(insert(poison).values(at=func.now()).on_conflict_do_nothing(), values)
    counts = sorted(Counter(item.poison.reason.value for item in items).items())
    connection.execute(
        counting_queries.ADD_SAMPLES,
        {
            "names": [_POISON_COUNTER] * len(counts),
            "labels": [f'{{"poison_reason":"{reason}"}}' for reason, _ in counts],
            "values": [float(count) for _, count in counts],
        },
    )


def _number(event: EventRow) -> int | None:
    """A version id that counts, so that two versions of one instant can be told apart; others are opaque."""
    version = event.version_id
    return (
        int(version) if version is not None and version.isascii() and version.isdigit() and len(version) < 18 else None
    )
