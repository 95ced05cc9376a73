"""The dead-letter topic: Kafka records that are no events, copied byte for byte, with where each stood and why.

A copy keeps its record's value and headers; its key is the position, `<topic>/<partition>/<offset>`, so that a copy
that was made twice (a crash after the copy and before the ledger's row) is seen to be the same. What the record's own
key was and when it was written stands in headers, beside the reason.

Copies may hold patient data, as everything in the topic of events may: who may read one may read the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from pipelines.config import Config
from pipelines.errors import CareloomError, PoisonReason
from pipelines.kafka.envelope import record_time
from pipelines.kafka.records import KafkaRecord, RawRecord
from pipelines.kafka.topics import ENVELOPE_BYTES, BrokerUnavailable, TopicUnusable, ensure_dead_letter_topic
from pipelines.ledger.rows import Position

log = logging.getLogger(__name__)

#: Ours among a copy's headers, behind the record's own.
PREFIX = "careloom_dead_letter_"
_TIMEOUT = 15.0


class CopyRefused(CareloomError):
    """The broker answers, and takes no copy: too large, not allowed, no such topic."""


class DeadLetterTopic:
    """Writes copies; connects at the first of them. For one thread. Close it.

    Args:
        config: its `kafka` and `gateway` sections.
        timeout: seconds until copies that the broker did not acknowledge are given up.
    """

    def __init__(self, config: Config, *, timeout: float = _TIMEOUT) -> None:
        self._config = config
        self._timeout = timeout
        self._producer: Any = None
        self._version = version("careloom").encode()

    def copy(self, records: Sequence[tuple[KafkaRecord, PoisonReason]]) -> list[Position]:
        """Copy records, and wait until the broker has every one of them on all in-sync replicas.

        When this raises, some may be there all the same: they are copied again, under the same key.

        Returns:
            where each copy stands.

        Raises:
            BrokerUnavailable: no broker, or no acknowledgement in time.
            CopyRefused: it takes one of them never.
        """
        try:
            producer = self._connected()
            sent = [self._send(producer, record, reason) for record, reason in records]
            placed = [future.get(timeout=self._timeout) for future in sent]
        except TopicUnusable as error:
            raise CopyRefused(str(error)) from None
        except KafkaError as error:
            self.close()
            what = type(error).__name__
            if error.retriable or isinstance(error, KafkaTimeoutError):
                raise BrokerUnavailable(f"Kafka did not acknowledge copies of dead letters ({what})") from None
            raise CopyRefused(f"topic {self._config.kafka.dead_letters} takes no copy ({what})") from None
        return [Position(place.topic, place.partition, place.offset) for place in placed]

    def close(self) -> None:
        """Give back the connection; what is under way is given up."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                producer.close(timeout=0)
            except KafkaError:
                producer._sender.force_close()  # kafka-python 3.0.12 stops closing halfway, and leaves its thread

    def _connected(self) -> Any:
        if self._producer is None:
            topic = ensure_dead_letter_topic(self._config, timeout=self._timeout)
            for note in topic.notes:
                log.warning("topic %s: %s", topic.name, note)
            milliseconds = int(self._timeout * 1000)
            self._producer = KafkaProducer(
                bootstrap_servers=self._config.kafka.bootstrap,
                client_id="careloom-dead-letters",
                acks="all",
                enable_idempotence=True,
                max_request_size=self._config.gateway.max_body_bytes + 2 * ENVELOPE_BYTES,
                delivery_timeout_ms=milliseconds,
                request_timeout_ms=milliseconds // 2,
                max_block_ms=milliseconds // 2,
                bootstrap_timeout_ms=milliseconds // 2,
                allow_auto_create_topics=False,
            )
        return self._producer

    def _send(self, producer: Any, record: KafkaRecord, reason: PoisonReason) -> Any:
        ours = {
            "topic": record.topic.encode(),
            "partition": b"%d" % record.partition,
            "offset": b"%d" % record.offset,
            "timestamp": b"%d" % record.timestamp,
            "time": record_time(record.timestamp).isoformat().encode(),
            "reason": reason.value.encode(),
            "careloom": self._version,
            **({} if record.key is None else {"key": record.key}),
        }
        headers = [*record.headers, *((PREFIX + name, value) for name, value in ours.items())]
        key = f"{record.topic}/{record.partition}/{record.offset}".encode()
        return producer.send(self._config.kafka.dead_letters, value=record.value, key=key, headers=headers)


def original(copy: RawRecord) -> RawRecord:
    """The record that a copy was made of.

    Raises:
        CareloomError: it is no copy of ours.
    """
    ours = {name.removeprefix(PREFIX): value for name, value in copy.headers if name.startswith(PREFIX)}
    try:
        return RawRecord(
            topic=ours["topic"].decode(),
            partition=int(ours["partition"]),
            offset=int(ours["offset"]),
            timestamp=int(ours["timestamp"]),
            key=ours.get("key"),
            value=copy.value,
            headers=[(name, value) for name, value in copy.headers if not name.startswith(PREFIX)],
        )
    except (KeyError, ValueError):
        raise CareloomError(
            f"{copy.topic}[{copy.partition}]@{copy.offset} is no copy of a dead letter: something else writes into"
            " that topic"
        ) from None
