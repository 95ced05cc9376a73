"""The bytes of events, read back from Kafka by (topic, partition, offset).

One consumer without a group, assigned and never subscribed, goes forward through what a batch needs and keeps what it
passes until it is asked for, up to a budget; what did not fit is read again when its turn comes.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.config import Kafka
from pipelines.errors import ErrorClass, PayloadGone, StepFailed
from pipelines.kafka.by_position import consumer_by_position
from pipelines.ledger.rows import EventRow, Position

#: Bytes of payloads kept ahead of their use.
BUDGET = 32 * 1024 * 1024
#: Seconds without one further record after which Kafka counts as unavailable.
PATIENCE = 15.0
#: Reading on to a record this many offsets ahead is cheaper than another fetch.
_NEAR = 500

# it tells of every connection at INFO: eighteen lines in each task's log, each through Airflow's supervisor
logging.getLogger("kafka").setLevel(logging.WARNING)


class PayloadSource(Protocol):
    """Where the bytes of events are; used by one thread at a time."""

    def expect(self, events: Iterable[EventRow]) -> None:
        """These are going to be asked for, each once."""
        ...

    def has(self, event: EventRow) -> bool:
        """Whether `get` would wait for nobody."""
        ...

    def get(self, event: EventRow) -> bytes:
        """The event's bytes as they came in.

        Raises:
            PayloadGone: Kafka no longer has them.
            StepFailed: KAFKA_UNAVAILABLE.
        """
        ...

    def forget(self) -> None:
        """What was expected and not asked for will not be; while nobody asks."""
        ...

    def close(self) -> None:
        """Give back the connection."""
        ...


@dataclass(frozen=True, slots=True)
class _Record:
    """What stands at an offset: an event's id and bytes, or why nothing does any more."""

    event_id: bytes | None = None
    value: bytes = b""
    gone: str | None = None


class KafkaPayloads:
    """A `PayloadSource` over Kafka; connects at the first `get`.

    Args:
        config: where the broker is.
        budget: bytes of payloads kept ahead of their use.
        patience: seconds without one further record after which Kafka counts as unavailable.
    """

    def __init__(self, config: Kafka, *, budget: int = BUDGET, patience: float = PATIENCE) -> None:
        self._config = config
        self._budget = budget
        self._patience = patience
        self._wanted: Counter[Position] = Counter()
        self._kept: dict[Position, _Record] = {}
        self._bytes_kept = 0
        self._consumer: Any = None

    def expect(self, events: Iterable[EventRow]) -> None:
        """See `PayloadSource.expect`."""
        self._wanted.update(event.position for event in events)

    def has(self, event: EventRow) -> bool:
        """See `PayloadSource.has`."""
        return event.position in self._kept

    def get(self, event: EventRow) -> bytes:
        """See `PayloadSource.get`."""
        position = event.position
        self._wanted[position] = max(self._wanted[position], 1)
        if position not in self._kept:
            self._read(position)
        self._wanted[position] -= 1
        if not self._wanted[position]:
            del self._wanted[position]
        found = self._kept.pop(position)
        self._bytes_kept -= len(found.value)
        gone = found.gone
        if gone is None and found.event_id != event.event_id.encode():
            gone = "another event stands at its offset: the topic was made anew"
        if gone is not None:
            place = f"{position.topic}[{position.partition}]@{position.offset}"
            raise PayloadGone(f"{place}: {gone}; have the source send the resource again")
        return found.value

    def forget(self) -> None:
        """See `PayloadSource.forget`."""
        self._wanted.clear()
        self._kept.clear()
        self._bytes_kept = 0

    def close(self) -> None:
        """See `PayloadSource.close`."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
            self._consumer = None

    def _read(self, first: Position) -> None:
        """Read until `first` is decided, and whatever else is wanted and fits the budget on the way."""
        from kafka.errors import KafkaError

        ahead = sorted((p for p in tuple(self._wanted) if p not in self._kept and p != first), key=_order)
        try:
            consumer = self._connected()
            for partition in _by_partition([first, *ahead]):
                if partition[0] != first and self._bytes_kept >= self._budget:
                    break
                self._read_partition(consumer, partition)
        except KafkaError as error:
            self.close()
            if first not in self._kept:
                raise _unavailable(type(error).__name__) from None

    def _read_partition(self, consumer: Any, wanted: Sequence[Position]) -> None:
        """Go through one partition's wanted offsets, which ascend but for the first."""
        from kafka import TopicPartition

        partition = TopicPartition(wanted[0].topic, wanted[0].partition)
        consumer.assign([])  # else a partition that was read before keeps the end that it had then
        consumer.assign([partition])
        at = -1
        for position in wanted:
            if position in self._kept:
                continue
            if position != wanted[0] and self._bytes_kept >= self._budget:
                return
            if not 0 <= at <= position.offset <= at + _NEAR:
                consumer.seek(partition, position.offset)
            self._read_up_to(consumer, partition, position)
            at = consumer.position(partition)

    def _read_up_to(self, consumer: Any, partition: Any, position: Position) -> None:
        """Poll until `position` is decided; every wanted record on the way is kept."""
        from kafka.errors import OffsetOutOfRangeError

        give_up = time.monotonic() + self._patience
        while position not in self._kept:
            try:
                records = consumer.poll(timeout_ms=200).get(partition, ())
            except OffsetOutOfRangeError:
                self._out_of_range(consumer, partition, position)
                records = ()
            for record in records:
                self._keep(record)
            if records:
                give_up = time.monotonic() + self._patience
            if position in self._kept:
                return
            if self._passed(consumer, partition, position):
                self._kept[position] = _Record(gone="its offset is no longer in the topic")
            elif time.monotonic() > give_up:
                raise _unavailable(f"no record within {self._patience:g} s")

    def _out_of_range(self, consumer: Any, partition: Any, position: Position) -> None:
        """Retention took `position` and all before it, or the topic is shorter than it once was.

        The consumer may tell of an offset that it was at before: then `position` is asked for again.
        """
        begin = consumer.beginning_offsets([partition])[partition]
        for lost in [
            p for p in tuple(self._wanted) if _partition(p) == partition and p.offset < begin and p not in self._kept
        ]:
            self._kept[lost] = _Record(gone="retention has taken it")
        if position not in self._kept and consumer.end_offsets([partition])[partition] <= position.offset:
            self._kept[position] = _Record(gone="its offset is beyond the end of the topic")
        consumer.seek(partition, position.offset)

    def _passed(self, consumer: Any, partition: Any, position: Position) -> bool:
        """Whether the partition was read beyond the offset, or ends before it (its high watermark says so)."""
        end = consumer.highwater(partition)
        return bool(consumer.position(partition) > position.offset or (end is not None and end <= position.offset))

    def _keep(self, record: Any) -> None:
        position = Position(record.topic, record.partition, record.offset)
        if position in self._wanted and position not in self._kept:
            self._kept[position] = _Record(dict(record.headers).get("ce_id"), record.value or b"")
            self._bytes_kept += len(record.value or b"")

    def _connected(self) -> Any:
        if self._consumer is None:
            self._consumer = consumer_by_position(self._config, self._patience, fetch_max_bytes=8 * 1024 * 1024)
        return self._consumer


def _partition(position: Position) -> tuple[str, int]:
    return position.topic, position.partition


def _order(position: Position) -> tuple[str, int, int]:
    return position.topic, position.partition, position.offset


def _by_partition(positions: Sequence[Position]) -> Iterator[list[Position]]:
    """Group by partition, the first position's partition first; ascending within each but for that first position."""
    groups: dict[tuple[str, int], list[Position]] = {}
    for position in positions:
        groups.setdefault(_partition(position), []).append(position)
    yield from groups.values()


def _unavailable(what: str) -> StepFailed:
    return StepFailed(ErrorClass.KAFKA_UNAVAILABLE, f"Kafka did not give the event's bytes: {what}")
