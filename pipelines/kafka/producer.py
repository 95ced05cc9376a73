"""The way into Kafka: acks=all, idempotent, awaited; whoever awaits knows that the broker has it, or that it may not.

kafka-python's producer has no bound on what it buffers, so the bound is kept here. A producer whose record was not
acknowledged is replaced by a new one: after a broker that lost its data or a fenced producer id the old one would never
succeed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from pipelines.config import Config
from pipelines.kafka.envelope import Envelope
from pipelines.kafka.thread_bridge import ToLoop, ToThread
from pipelines.kafka.topics import ENVELOPE_BYTES, BrokerUnavailable, TopicUnusable, ensure_topic
from pipelines.ledger.rows import Position

log = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
DELIVERY_TIMEOUT = 15.0
"""Seconds until an unacknowledged record is given up; Apache Kafka killed -9 is back after 4 to 6."""

#: Records that are appended in the event loop, some 50 us each; more would hold up every other request.
_FEW = 20

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
        self._away = False  # the last that was heard of Kafka is that it acknowledged nothing
        self._trying = False  # a request waits for it to be otherwise
        # for many records at once, and for a wait for metadata, which would stop the event loop
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
        if self._away and self._trying:
            raise BrokerUnavailable("Kafka acknowledges nothing; another request is trying it")
        size = sum(len(envelope.value) + len(envelope.key) for envelope in envelopes)
        if self._buffered and self._buffered + size > self._max_buffered:
            raise BrokerUnavailable("too much waits for Kafka's acknowledgement already")
        if not envelopes:
            return []
        self._buffered += size
        try:
            with self._watched():
                return await self._produce(envelopes)
        finally:
            self._buffered -= size

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """While Kafka acknowledges nothing one request at a time waits for it: the others are told at once."""
        tries = self._away
        self._trying = self._trying or tries
        try:
            yield
        except BrokerUnavailable:
            self._away = True
            raise
        else:
            self._away = False
        finally:
            if tries:
                self._trying = False

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
        self._answers = self._answers or ToLoop(loop)
        request = _Request(loop.create_future(), len(envelopes), self._answers)
        # a broker killed -9 can leave records of kafka-python 3.0.12 without any answer for ever
        giving_up = loop.call_later(_METADATA_TIMEOUT + 2 * self._delivery_timeout, request.give_up)
        try:
            if self._at_once(kafka, envelopes):
                self._append(kafka, envelopes, request)
            else:
                self._in_thread(partial(self._append, kafka, envelopes, request))
            return await request.future
        except _TOO_LARGE:
            raise RecordTooLarge("the broker takes no record of this size") from None
        except TimeoutError:
            self._replace(kafka)
            raise BrokerUnavailable("Kafka neither acknowledged nor refused in time") from None
        except KafkaError as error:
            self._replace(kafka)
            raise BrokerUnavailable(f"Kafka did not acknowledge ({type(error).__name__})") from None
        finally:
            giving_up.cancel()

    def _at_once(self, kafka: Any, envelopes: Sequence[Envelope]) -> bool:
        """Whether appending waits for nothing: then the detour by a thread is a good part of what a request costs."""
        known = kafka._metadata.partitions_for_topic(self._config.kafka.topic)
        return bool(known) and len(envelopes) <= _FEW

    def _append(self, kafka: Any, envelopes: Sequence[Envelope], request: _Request) -> None:
        """What cannot be appended ends the request: nothing after it is sent."""
        for number, envelope in enumerate(envelopes):
            try:
                sent = kafka.send(
                    self._config.kafka.topic, value=envelope.value, key=envelope.key, headers=envelope.headers
                )
            except Exception as error:  # noqa: BLE001 raised where it is waited for
                request.failed(error)
                return
            sent.add_callback(partial(request.acknowledged, number))
            sent.add_errback(request.failed)

    def _replace(self, kafka: Any) -> None:
        if self._kafka is kafka:
            self._kafka = None
            closing = ThreadPoolExecutor(1, thread_name_prefix="careloom-producer-closing")
            closing.submit(_close, kafka, self._delivery_timeout)
            closing.shutdown(wait=False)


class _Request:
    """The records of one request: settled when the last of them is acknowledged, or one is not.

    Told by kafka-python's thread, or by the one that appends where a record is settled before it is asked about.

    Args:
        future: of the event loop; the positions.
        records: how many there are.
        answers: the way to the event loop.
    """

    def __init__(self, future: asyncio.Future[list[Position]], records: int, answers: ToLoop) -> None:
        self.future = future
        self._records = records
        self._answers = answers
        self._acknowledged: list[tuple[int, Position]] = []

    def acknowledged(self, number: int, record: Any) -> None:
        """The record of this number is on all in-sync replicas."""
        self._acknowledged.append((number, Position(record.topic, record.partition, record.offset)))
        if len(self._acknowledged) == self._records:
            self._answers.answer(
                self.future, None, [position for _, position in sorted(self._acknowledged, key=_first)]
            )

    def failed(self, error: BaseException) -> None:
        """One of them is not, or may not be."""
        self._answers.answer(self.future, error)

    def give_up(self) -> None:
        """In the event loop: it took too long."""
        if not self.future.done():
            self.future.set_exception(TimeoutError())


_first = itemgetter(0)


def _close(kafka: Any, timeout: float) -> None:
    """Close a producer, and its thread too: kafka-python 3.0.12 stops closing halfway when its flush times out."""
    try:
        kafka.close(timeout=timeout)
    except KafkaError as error:
        log.info("a producer was given up with records under way (%s)", type(error).__name__)
        kafka._sender.force_close()  # settles what is under way with an error, and ends the thread
        kafka._closed = True  # else it would be closed once more, and fail, when it is collected
