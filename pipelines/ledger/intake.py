"""Kafka records into rows: exact, in one transaction, however often the same records come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pipelines.ledger.rows import EventRow, Incoming, Recorded
from pipelines.ledger.states import State
from pipelines.ledger.tables import events, progress, work


@dataclass(slots=True)
class _Tally:
    """What one partition's records were."""

    next_offset: int
    events: int = 0
    duplicates: int = 0
    poison: int = 0
    missing: int = 0
    matches: int = 0


def record(connection: Connection, batch: Sequence[Incoming], matched_at: datetime) -> Recorded:
    """Write a batch of Kafka records, each exactly once.

    Records that lie before the partition's `next_offset` were recorded by an earlier call and are passed over. An
    event whose identity is known is counted as a duplicate. A jump in the offsets is counted as missing.

    Args:
        connection: in a transaction; the caller commits it, and only then the Kafka offset.
        batch: records in the order of their offsets, of any partitions.
        matched_at: when the scenarios were matched.
    """
    by_partition: dict[tuple[str, int], list[Incoming]] = defaultdict(list)
    for item in batch:
        by_partition[item.position.topic, item.position.partition].append(item)
    total = Recorded(0, 0, 0, 0)
    for topic, partition in sorted(by_partition):  # one lock order for all dispatchers
        tally = _record_partition(connection, by_partition[topic, partition], matched_at)
        total += Recorded(tally.events, tally.duplicates, tally.poison, tally.matches, tally.missing)
    return total


def _record_partition(connection: Connection, items: list[Incoming], matched_at: datetime) -> _Tally:
    first = items[0].position
    where = (progress.c.topic == first.topic) & (progress.c.partition == first.partition)
    connection.execute(
        insert(progress)
        .values(topic=first.topic, partition=first.partition, base_offset=first.offset, next_offset=first.offset)
        .on_conflict_do_nothing()
    )
    tally = _Tally(connection.execute(select(progress.c.next_offset).where(where).with_for_update()).scalar_one())
    fresh: dict[str, Incoming] = {}
    for item in items:
        offset = item.position.offset
        if offset < tally.next_offset:
            continue
        tally.missing += offset - tally.next_offset
        tally.next_offset = offset + 1
        if item.event is None:
            tally.poison += 1
        elif item.event.event_id in fresh:
            tally.duplicates += 1
        else:
            fresh[item.event.event_id] = item
    inserted = _insert_events(connection, fresh, matched_at)
    tally.events = len(inserted)
    tally.duplicates += len(fresh) - len(inserted)
    tally.matches = _insert_work(
        connection, [fresh[event_id] for event_id in fresh if event_id in inserted], matched_at
    )
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
    return len(values)


def _number(event: EventRow) -> int | None:
    """A version id that counts, so that two versions of one instant can be told apart; others are opaque."""
    version = event.version_id
    return (
        int(version) if version is not None and version.isascii() and version.isdigit() and len(version) < 18 else None
    )
