"""Single Kafka records as they are, read by their position: for people who look into one, and for poison read again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.config import Kafka
from pipelines.kafka.by_position import consumer_by_position
from pipelines.kafka.envelope import Headers
from pipelines.kafka.topics import BrokerUnavailable
from pipelines.ledger.rows import Position

#: Seconds without an answer after which Kafka counts as unavailable.
PATIENCE = 15.0


class KafkaRecord(Protocol):
    """The parts of kafka-python's ConsumerRecord that are read; `RawRecord` has them too."""

    @property
    def topic(self) -> str:
        """Where it stands."""

    @property
    def partition(self) -> int:
        """Where it stands."""

    @property
    def offset(self) -> int:
        """Where it stands."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """As it was written."""

    @property
    def value(self) -> bytes | None:
        """As it was written."""

    @property
    def headers(self) -> Headers:
        """As they were written."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record, nothing of it looked at.

    Attributes:
        timestamp: milliseconds since 1970 by the broker or the writer, as the topic is set.
        key, value: None where it has none.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Records:
    """Reads records one by one; connects at the first. Close it.

    Args:
        config: where the broker is.
        patience: seconds without an answer after which it counts as unavailable.
    """

    def __init__(self, config: Kafka, *, patience: float = PATIENCE) -> None:
        self._config = config
        self._patience = patience
        self._consumer: Any = None

    def at(self, position: Position) -> RawRecord | None:
        """The record at a position; None where Kafka has none there, any more or yet.

        Raises:
            BrokerUnavailable: no answer.
        """
        from kafka.errors import KafkaError

        try:
            return self._at(position)
        except KafkaError as error:
            self.close()
            raise BrokerUnavailable(
                f"Kafka at {self._config.bootstrap} did not give a record ({type(error).__name__}); is it running?"
            ) from None

    def close(self) -> None:
        """Give back the connection."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
            self._consumer = None

    def _at(self, position: Position) -> RawRecord | None:
        from kafka import TopicPartition
        from kafka.errors import OffsetOutOfRangeError, UnknownTopicOrPartitionError

        consumer = self._connected()
        partition = TopicPartition(position.topic, position.partition)
        if position.partition not in (consumer.partitions_for_topic(position.topic) or ()):
            return None
        consumer.assign([partition])
        consumer.seek(partition, position.offset)
        give_up = time.monotonic() + self._patience
        while time.monotonic() < give_up:
            try:
                records = consumer.poll(timeout_ms=200, max_records=1).get(partition, ())
            except (OffsetOutOfRangeError, UnknownTopicOrPartitionError):
                return None
            if records:
                return _raw(records[0]) if records[0].offset == position.offset else None
            end = consumer.highwater(partition)
            if end is not None and end <= position.offset:
                return None
        raise BrokerUnavailable(f"Kafka gave no record within {self._patience:g} s; is it running?")

    def _connected(self) -> Any:
        if self._consumer is None:
            self._consumer = consumer_by_position(self._config, self._patience)
        return self._consumer


def _raw(record: Any) -> RawRecord:
    return RawRecord(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )
