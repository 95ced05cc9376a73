"""The way into Kafka: acks=all, idempotent, awaited; whoever awaits knows that the broker has it, or that it may not.

kafka-python's producer has no bound on what it buffers, so the bound is kept here. A producer whose record was not
acknowledged is replaced by a new one: after a broker that lost its data or a fenced producer id the old one would never
succeed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from pipelines.config import Config
from pipelines.envelope import Envelope
from pipelines.ledger.rows import Position
from pipelines.thread_bridge import ToLoop, ToThread
from pipelines.topics import ENVELOPE_BYTES, BrokerUnavailable, TopicUnusable, ensure_topic

log = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
DELIVERY_TIMEOUT = 15.0
"""Seconds until an unacknowledged record is given up; Apache Kafka killed -9 is back after 4 to 6."""

_REQUEST_TIMEOUT = 5.0
_METADATA_TIMEOUT = 5.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class RecordTooLarge(Exception):
    """The broker takes no record of this size; sending it again will not help."""


class Producer:
    """Produces envelopes to the topic of events.

    Args:
        config: its `kafka` and `gateway` sections.
        delivery_timeout: seconds until a record that the broker did not acknowledge is given up.
        max_buffered_bytes: of all records that wait for their acknowledgement.
    """

    def __init__(
        self,
        config: Config,
        *,
        delivery_timeout: float = DELIVERY_TIMEOUT,
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
    ) -> None:
        self._config = config
        self._delivery_timeout = delivery_timeout
        self._max_buffered = max_buffered_bytes
        self._buffered = 0
        self._kafka: Any = None
        self._generation = 0
        self._connecting: asyncio.Task[Any] | None = None
        # one thread: a request's records are appended in their order, and a wait for metadata stops no event loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="careloom-producer")
        self._in_thread = ToThread(self._thread)
        self._answers: ToLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a producer that the broker has answered."""
        return self._kafka is not None

    @property
    def generation(self) -> int:
        """How often the connection was made; another one may be to a broker that lost its data."""
        return self._generation

    @property
    def buffered_bytes(self) -> int:
        """What waits for its acknowledgement now."""
        return self._buffered

    async def connect(self) -> None:
        """Make the topic and a producer where there is none; several callers share one try.

        Raises:
            BrokerUnavailable: the broker does not answer.
            TopicUnusable: the topic cannot be made.
        """
        if self._kafka is not None:
            return
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        await asyncio.shield(self._connecting)

    async def produce(self, envelopes: Sequence[Envelope]) -> list[Position]:
        """Send a request's envelopes and wait until the broker has every one of them on all in-sync replicas.

        When this raises, some of them may be in Kafka all the same: the sender sends all again, and the ledger knows an
        event by its identity.

        Raises:
            BrokerUnavailable: no broker, no acknowledgement in time, or too much waits already.
            RecordTooLarge: the broker takes no record of this size.
        """
        size = sum(len(envelope.value) + len(envelope.key) for envelope in envelopes)
        if self._buffered and self._buffered + size > self._max_buffered:
            raise BrokerUnavailable("too much waits for Kafka's acknowledgement already")
        self._buffered += size
        try:
            return await self._produce(envelopes)
        finally:
            self._buffered -= size

    async def close(self) -> None:
        """Wait for what is under way, at most the delivery timeout, and end."""
        if self._connecting is not None:
            with contextlib.suppress(BrokerUnavailable, TopicUnusable):
                await self._connecting
        if self._kafka is not None:
            kafka, self._kafka = self._kafka, None
            await asyncio.get_running_loop().run_in_executor(self._thread, _close, kafka, self._delivery_timeout)
        self._thread.shutdown(wait=False)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        topic, self._kafka = await loop.run_in_executor(self._thread, self._open)
        self._generation += 1
        for note in topic.notes:
            log.warning("topic %s: %s", topic.name, note)

    def _connected(self, task: asyncio.Task[Any]) -> None:
        self._connecting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("not connected to Kafka: %s", error)

    def _open(self) -> tuple[Any, Any]:
        topic = ensure_topic(self._config, timeout=_REQUEST_TIMEOUT)
        try:
            producer = KafkaProducer(
                bootstrap_servers=self._config.kafka.bootstrap,
                client_id="careloom-gateway",
                acks="all",
                enable_idempotence=True,
                linger_ms=2,
                max_request_size=self._config.gateway.max_body_bytes + ENVELOPE_BYTES,
                delivery_timeout_ms=int(self._delivery_timeout * 1000),
                request_timeout_ms=int(min(_REQUEST_TIMEOUT, self._delivery_timeout / 2) * 1000),
                max_block_ms=int(_METADATA_TIMEOUT * 1000),
                bootstrap_timeout_ms=int(_REQUEST_TIMEOUT * 1000),
                reconnect_backoff_max_ms=1000,
                allow_auto_create_topics=False,
            )
        except KafkaError as error:
            raise BrokerUnavailable(f"the broker broke off ({type(error).__name__}) while we connected") from None
        try:
            producer.partitions_for(topic.name)
        except KafkaError as error:
            _close(producer, 0)
            raise BrokerUnavailable(f"the broker does not tell of its topic ({type(error).__name__})") from None
        return topic, producer

    async def _produce(self, envelopes: Sequence[Envelope]) -> list[Position]:
        await self.connect()
        kafka = self._kafka
        if kafka is None:
            raise BrokerUnavailable("the connection to Kafka is being made anew")
        loop = asyncio.get_running_loop()
        answers = self._answers = self._answers or ToLoop(loop)
        acknowledged: list[asyncio.Future[Any]] = [loop.create_future() for _ in envelopes]
        try:
            # a broker killed -9 can leave records of kafka-python 3.0.12 without any answer for ever
            async with asyncio.timeout(_METADATA_TIMEOUT + 2 * self._delivery_timeout):
                self._in_thread(partial(self._append, kafka, envelopes, answers, acknowledged))
                records = await asyncio.gather(*acknowledged)
        except _TOO_LARGE:
            raise RecordTooLarge("the broker takes no record of this size") from None
        except TimeoutError:
            self._replace(kafka)
            raise BrokerUnavailable("Kafka neither acknowledged nor refused in time") from None
        except KafkaError as error:
            self._replace(kafka)
            raise BrokerUnavailable(f"Kafka did not acknowledge ({type(error).__name__})") from None
        finally:
            for future in acknowledged:
                future.add_done_callback(_look_at)
        return [Position(record.topic, record.partition, record.offset) for record in records]

    def _append(
        self, kafka: Any, envelopes: Sequence[Envelope], answers: ToLoop, acknowledged: Sequence[asyncio.Future[Any]]
    ) -> None:
        """In the producer's thread. What cannot be appended ends the request: nothing after it is sent."""
        for envelope, future in zip(envelopes, acknowledged, strict=True):
            try:
                sent = kafka.send(
                    self._config.kafka.topic, value=envelope.value, key=envelope.key, headers=envelope.headers
                )
            except Exception as error:  # noqa: BLE001 raised where it is waited for
                answers.answer(future, error)
                return
            sent.add_callback(partial(answers.answer, future, None))
            sent.add_errback(partial(answers.answer, future))

    def _replace(self, kafka: Any) -> None:
        if self._kafka is kafka:
            self._kafka = None
            closing = ThreadPoolExecutor(1, thread_name_prefix="careloom-producer-closing")
            closing.submit(_close, kafka, self._delivery_timeout)
            closing.shutdown(wait=False)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Read the exception of a future that nobody awaits any more, so that asyncio does not report it."""
    if not future.cancelled():
        future.exception()


def _close(kafka: Any, timeout: float) -> None:
    """Close a producer, and its thread too: kafka-python 3.0.12 stops closing halfway when its flush times out."""
    try:
        kafka.close(timeout=timeout)
    except KafkaError as error:
        log.info("a producer was given up with records under way (%s)", type(error).__name__)
        kafka._sender.force_close()  # settles what is under way with an error, and ends the thread
        kafka._closed = True  # else it would be closed once more, and fail, when it is collected
