"""Kafka records that cannot be read at all, found by trying: those of a batch with a wrong checksum, or without form.

What such a batch held is unknown, so each of its offsets counts as one record. A second connection must fail at them
too: what came damaged through the network is read at the next try.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaTimeoutError

from pipelines.config import Kafka
from pipelines.kafka.by_position import consumer_by_position
from pipelines.ledger import Position

#: Offsets found at once, over all partitions; what is behind them is found the next time.
_MOST = 500
#: Seconds without an answer after which Kafka counts as unavailable.
_PATIENCE = 15.0


def find(config: Kafka, standing: Mapping[TopicPartition, int]) -> list[Position]:
    """The unreadable records that each partition goes on with; none where the next one can be read.

    Args:
        config: where the broker is.
        standing: the offset that each partition is read on from.

    Raises:
        KafkaError: no answer, or another one than a record.
    """
    consumer = consumer_by_position(config, _PATIENCE, client_id="careloom-dispatcher-unreadable")
    found: list[Position] = []
    with closing(consumer):
        for partition, offset in standing.items():
            for unreadable in _from(consumer, partition, offset):
                if len(found) == _MOST:
                    return found
                found.append(unreadable)
    return found


def _from(consumer: Any, partition: TopicPartition, offset: int) -> Iterator[Position]:
    """Unreadable records from `offset` to the first one that can be read, or the partition's end.

    A consumer that has raised is sought on before it polls again: kafka-python's would not come back otherwise.
    """
    consumer.assign([partition])
    while not _readable(consumer, partition, offset):
        yield Position(partition.topic, partition.partition, offset)
        offset += 1


def _readable(consumer: Any, partition: TopicPartition, offset: int) -> bool:
    """Whether there is something to read at `offset`, or nothing at all yet."""
    consumer.seek(partition, offset)
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        try:
            records = consumer.poll(timeout_ms=200, max_records=1)
        except CorruptRecordError:
            return False
        end = consumer.highwater(partition)
        if records or (end is not None and end <= offset):
            return True
    raise KafkaTimeoutError(f"Kafka gave no record within {_PATIENCE:g} s")
