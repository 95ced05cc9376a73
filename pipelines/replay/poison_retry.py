"""Poison read once more, after whatever made it unreadable was mended: what is an event now is recorded as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from sqlalchemy.exc import DataError

from pipelines.config import Config
from pipelines.dispatcher.matching import Reader, reader_of
from pipelines.errors import PoisonReason
from pipelines.kafka.dead_letter_topic import original
from pipelines.kafka.envelope import record_time
from pipelines.kafka.records import PATIENCE, RawRecord, Records
from pipelines.ledger import Ledger, Position
from pipelines.ledger.dead_letters import PoisonRow
from pipelines.ledger.rows import UNKNOWN_TIME
from plugins import manager


class ReadsRecords(Protocol):
    """`pipelines.kafka.records.Records`, and a fake in tests."""

    def at(self, position: Position) -> RawRecord | None:
        """See `Records.at`."""
        ...


class Outcome(StrEnum):
    """What came of reading poison again."""

    RECORDED = "recorded"  # it is an event, and stands in the ledger
    KNOWN = "known"  # it is an event that the ledger had already
    STILL_POISON = "still poison"
    GONE = "gone"  # Kafka has neither the record nor its copy any more


@dataclass(frozen=True, slots=True)
class Found:
    """A poison record as it was written, and where in Kafka its bytes are now."""

    record: RawRecord
    at: Position


def find(records: ReadsRecords, row: PoisonRow) -> Found | None:
    """The record itself, else its copy; None where Kafka has neither any more.

    A record of another time at its position is another record: the topic was made anew. Where its time is unknown, as
    it could not be read at all, it is whatever stands there.

    Raises:
        BrokerUnavailable: no answer.
        CareloomError: what stands in the dead-letter topic is no copy.
    """
    record = records.at(row.position)
    if record is not None and row.record_at in (UNKNOWN_TIME, record_time(record.timestamp)):
        return Found(record, row.position)
    copy = records.at(row.copy) if row.copy is not None else None
    return Found(original(copy), row.copy) if copy is not None and row.copy is not None else None


def again_each(
    ledger: Ledger, config: Config, rows: Iterable[PoisonRow], *, by: str, why: str, patience: float = PATIENCE
) -> Iterator[tuple[PoisonRow, Outcome]]:
    """Hand each of these to a reader that knows the scenarios that are installed now; yields what came of it.

    Kafka is asked only when there is something to ask it for, and has `patience` seconds to answer. Raises as `again`.
    """
    reader: Reader | None = None
    records: Records | None = None
    try:
        for row in rows:
            if reader is None or records is None:
                loaded = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios)
                reader, records = reader_of(loaded.scenarios.values()), Records(config.kafka, patience=patience)
            yield row, again(ledger, records, reader, row, by=by, why=why)
    finally:
        if records is not None:
            records.close()


def again(ledger: Ledger, records: ReadsRecords, reader: Reader, row: PoisonRow, *, by: str, why: str) -> Outcome:
    """Hand a poison record to the reader once more.

    Args:
        ledger: where it stands.
        records: reads Kafka.
        reader: with the scenarios that are installed now.
        row: the poison.
        by, why: who has it read again, and why.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        LedgerError: somebody else has decided on it meanwhile.
    """
    found = find(records, row)
    if found is None:
        return Outcome.GONE
    incoming = reader.read(found.record)
    reason = incoming.poison.reason
    if incoming.event is not None:
        event = replace(incoming.event, position=found.at)
        try:
            recorded = ledger.poison_recorded(
                row.id, event, incoming.matches, by=by, why=why, decision=incoming.decision
            )
        except DataError:
            reason = PoisonReason.NOT_STORABLE
        else:
            return Outcome.RECORDED if recorded.events else Outcome.KNOWN
    ledger.poison_again(row.id, reason, by=by, why=why)
    return Outcome.STILL_POISON
