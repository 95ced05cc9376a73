"""Kafka -> ledger -> offset commit: at least once out of Kafka, exactly once in the ledger.

An offset is committed after its rows are; whatever happens between leaves the ledger ahead of the group, and the ledger
is asked where to go on. A rebalance in the middle of a batch does no harm: what two dispatchers read, one records.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError
from sqlalchemy.exc import DataError, SQLAlchemyError

from monitoring import metrics
from monitoring.metrics import RecordOutcome
from pipelines import tracing
from pipelines.breaker import KAFKA
from pipelines.config import Config
from pipelines.dead_letter_topic import DeadLetterTopic
from pipelines.dispatcher import unreadable
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.poison import PoisonBox
from pipelines.dispatcher.positions import Extent, start
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.watched import Watched
from pipelines.envelope import record_time
from pipelines.errors import CareloomError, PoisonReason
from pipelines.fail_points import fail_point
from pipelines.failure_policy import Trouble
from pipelines.header_names import mend_header_names
from pipelines.ledger import Incoming, Ledger, Poison, Recorded
from pipelines.process import describe
from pipelines.records import KafkaRecord
from pipelines.topics import BrokerUnavailable, ensure_topic

log = logging.getLogger(__name__)

#: Records a batch, and bytes that are fetched ahead: what bounds this process's memory.
_BATCH = 500
_FETCH_BYTES = 16 * 1024 * 1024
_POLL_MS = 200
#: Seconds for a question to the broker that is asked outside of polling.
_ANSWER_MS = 10_000
#: Seconds after which offsets that could not be committed are committed again.
_COMMIT_AGAIN = 1.0


class Intake:
    """The thread that reads Kafka.

    Args:
        config: its `kafka` section, and the limits that the topic is made with where it is missing.
        ledger: takes the rows.
        reader: makes them of records.
        pressure: says when to stop reading.
        wake: called after rows were written.
        backoff: after the ledger or the broker failed.
        poison: sees to it that records which are no events are copied; made from `config` when None.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        reader: Reader,
        pressure: Pressure,
        wake: Callable[[], None],
        backoff: Backoff,
        poison: PoisonBox | None = None,
    ) -> None:
        self._config = config
        self._kafka = config.kafka
        self._ledger = ledger
        self._reader = reader
        self._pressure = pressure
        self._wake = wake
        self._backoff = backoff
        self._epochs: Mapping[tuple[str, int], int] = {}
        self._watched = Watched(ledger, KAFKA, Trouble.BROKER_UNAVAILABLE)
        self._poison = poison or PoisonBox(DeadLetterTopic(config), backoff)

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set. A broken connection to the broker or the ledger is made anew."""
        try:
            self._run(stop)
        finally:
            self._poison.close()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._session(stop)
            except (KafkaError, SQLAlchemyError, CareloomError) as error:
                if isinstance(error, KafkaError):
                    self._watched.failed()
                wait = self._backoff.failed()
                log.warning("intake broke off (%s); on in %.1f s", describe(error), wait)
                stop.wait(wait)

    def _session(self, stop: threading.Event) -> None:
        for note in ensure_topic(self._config).notes:
            log.warning("topic %s: %s", self._kafka.topic, note)
        consumer = self._connect()
        try:
            session = _Session(consumer, self._ledger)
            # kafka-python 3.0.12: a leader that joins before it knows the topic assigns nothing, and may stay so
            if not consumer.partitions_for_topic(self._kafka.topic):
                raise BrokerUnavailable(f"the broker does not say which partitions {self._kafka.topic} has")
            consumer.subscribe([self._kafka.topic], listener=session)
            while not stop.is_set():
                self._step(session, stop)
        except CorruptRecordError:
            if not self._passed_over(session):
                raise
        finally:
            consumer.close(autocommit=False, timeout_ms=_ANSWER_MS)

    def _step(self, session: _Session, stop: threading.Event) -> None:
        """One poll, and what it brought into the ledger."""
        session.place()
        session.hold(self._pressure.too_high)
        if session.placed:
            self._watched.served()
        records = session.poll()
        session.commit()
        if not records:
            return
        began = datetime.now(UTC)
        self._epochs = session.epochs()
        read = [self._reader.read(record) for record in records]
        fail_point("dispatcher.consumed")
        incoming = self._poison.copied(records, read, stop)
        recorded = None if incoming is None else self._record(records, incoming, stop)
        if incoming is None or recorded is None:
            return  # asked to stop while broker or ledger was away: nothing is committed, the records come again
        fail_point("dispatcher.recorded")
        _count(recorded, len(incoming))
        _traced(incoming, began)
        self._pressure.added(recorded.work)
        if recorded.work:
            self._wake()
        session.commit(incoming)
        fail_point("dispatcher.committed")

    def _passed_over(self, session: _Session) -> bool:
        """Take what cannot be read as poison, without a copy; the next session reads on behind it. False where all can.

        Raises:
            KafkaError, SQLAlchemyError, ReadBeforeRewind: nothing was taken; it is come upon again.
        """
        self._epochs = session.epochs()
        incoming = [Incoming(position, None) for position in unreadable.find(self._kafka, session.standing())]
        for item in incoming:
            at, reason = item.position, item.poison.reason
            log.error("poison in %s[%d]@%d: %s: its batch is corrupt", at.topic, at.partition, at.offset, reason)
        if incoming:
            _count(self._write(incoming), len(incoming))
        return bool(incoming)

    def _write(self, incoming: Sequence[Incoming]) -> Recorded:
        """Into the ledger, in the epochs in which these records were read.

        Raises:
            ReadBeforeRewind: another dispatcher has found since that the broker lost its data: all is read anew.
        """
        return self._ledger.record(incoming, self._epochs)

    def _record(
        self, records: Sequence[KafkaRecord], incoming: Sequence[Incoming], stop: threading.Event
    ) -> Recorded | None:
        """Write a batch, as often as it takes; only this one is held in memory meanwhile. None when asked to stop.

        That the group gives the partitions to somebody else during a long outage does no harm: see `Ledger.record`.
        """
        while True:
            try:
                recorded = self._write(incoming)
            except DataError:
                return self._one_by_one(records, incoming, stop)
            except SQLAlchemyError as error:
                wait = self._backoff.failed()
                log.warning("the ledger takes no records (%s); again in %.1f s", type(error).__name__, wait)
                if stop.wait(wait):
                    return None
            else:
                self._backoff.succeeded()
                return recorded

    def _one_by_one(
        self, records: Sequence[KafkaRecord], incoming: Sequence[Incoming], stop: threading.Event
    ) -> Recorded | None:
        """One of these records holds what PostgreSQL cannot keep: that one is poison, the others are not.

        None when asked to stop before it was copied.

        Raises:
            SQLAlchemyError: the ledger failed; the records come again.
        """
        total = Recorded(0, 0, 0, 0)
        for record, item in zip(records, incoming, strict=True):
            try:
                recorded = self._write([item])
            except DataError:
                where = item.position
                log.warning(
                    "poison in %s[%d]@%d: the ledger cannot keep it", where.topic, where.partition, where.offset
                )
                reason = Poison(PoisonReason.NOT_STORABLE, record_time(record.timestamp))
                poison = self._poison.copied([record], [Incoming(where, None, poison=reason)], stop)
                if poison is None:
                    return None
                recorded = self._write(poison)
            total = total + recorded
        return total

    def _connect(self) -> Any:
        mend_header_names()
        return KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap,
            group_id=self._kafka.group,
            client_id="careloom-dispatcher",
            enable_auto_commit=False,
            # partitions are placed by the ledger's offset; this counts only where the broker has lost that offset
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_poll_records=_BATCH,
            fetch_max_bytes=_FETCH_BYTES,
            # the broker answers at once when there is something, and is asked twice a second when there is nothing
            fetch_max_wait_ms=500,
            # started again, a dispatcher takes up its partitions at once; another gets them when this time is over
            group_instance_id=f"{socket.gethostname()}-{self._config.dispatcher.metrics_port}",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=500,
            # also how long a rebalance waits for a member that does not move: five minutes by default
            max_poll_interval_ms=30_000,
            request_timeout_ms=20_000,
            metadata_max_age_ms=30_000,
            bootstrap_timeout_ms=_ANSWER_MS,
            reconnect_backoff_max_ms=1_000,
        )


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """One consumer's life: which partitions it has, where each stands, and whether they are held.

    The listener's methods are called by the consumer's own thread; they only take notes.
    """

    def __init__(self, consumer: Any, ledger: Ledger) -> None:
        self._consumer = consumer
        self._ledger = ledger
        self._lock = threading.Lock()
        self._unplaced: set[TopicPartition] = set()
        self._went_back: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}
        self._epochs: dict[tuple[str, int], int] = {}
        self._to_commit: dict[TopicPartition, int] = {}
        self._unmarked: set[TopicPartition] = set()
        self._commit_after = float("-inf")

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """These are ours from now on."""
        with self._lock:
            self._unplaced |= set(assigned)

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """These are another's from now on."""
        with self._lock:
            for partition in revoked:
                self._unplaced.discard(partition)
                self._went_back.discard(partition)
                self._unmarked.discard(partition)
                self._next.pop(partition, None)
                self._to_commit.pop(partition, None)
                _forget_lag(partition)

    @property
    def placed(self) -> bool:
        """Whether the broker has told where some partition stands."""
        with self._lock:
            return bool(self._next)

    def place(self) -> None:
        """Go to where each newly assigned partition is to be read on.

        Raises:
            KafkaError, SQLAlchemyError: broker or ledger did not say.
        """
        with self._lock:
            new = sorted(self._unplaced)
        if not new:
            return
        begins = self._consumer.beginning_offsets(new, timeout_ms=_ANSWER_MS)
        ends = self._consumer.end_offsets(new, timeout_ms=_ANSWER_MS)
        for partition in new:
            committed = self._consumer.committed(partition, timeout_ms=_ANSWER_MS)
            self._place(partition, Extent(begins[partition], ends[partition], committed))

    def _place(self, partition: TopicPartition, extent: Extent) -> None:
        standing = self._ledger.standing(partition.topic, partition.partition)
        known = standing.next_offset
        where = start(known, extent, committed_once=standing.committed_once, went_back=partition in self._went_back)
        if where.rewound:
            if not self._ledger.rewind(partition.topic, partition.partition, where.offset, standing.epoch):
                return  # another dispatcher was faster: it is placed by what that one wrote
            standing = replace(standing, epoch=standing.epoch + 1)
            metrics.BROKER_REWINDS.inc()
            log.error(
                "%s[%d]: the ledger had read up to %s, but the broker holds %d to %d, committed %s: it lost data or the"
                " topic was made anew; all that it holds is read",
                partition.topic, partition.partition, known, extent.begin, extent.end, extent.committed,
            )  # fmt: skip
        if not self._owned(partition):
            return
        self._consumer.seek(partition, where.offset)
        with self._lock:
            self._unplaced.discard(partition)
            self._went_back.discard(partition)
            self._next[partition] = where.offset
            self._epochs[partition.topic, partition.partition] = standing.epoch
            if extent.committed != where.offset:
                self._to_commit[partition] = where.offset
            if where.rewound or not standing.committed_once:
                self._unmarked.add(partition)

    def hold(self, held: bool) -> None:
        """Stop or go on fetching, without leaving the group."""
        metrics.READING_HELD_BACK.set(held)
        assigned, paused = set(self._consumer.assignment()), set(self._consumer.paused())
        if held and assigned - paused:
            self._consumer.pause(*(assigned - paused))
        elif not held and paused:
            self._consumer.resume(*paused)

    def poll(self) -> list[KafkaRecord]:
        """The next records, of placed partitions only and in the order of their offsets."""
        taken: list[KafkaRecord] = []
        for partition, records in self._consumer.poll(timeout_ms=_POLL_MS, max_records=_BATCH).items():
            with self._lock:
                expected = self._next.get(partition)
                if expected is None:
                    continue  # assigned during this poll: it is placed first, and then read
                if records[0].offset < expected:
                    self._went_back.add(partition)
                    self._unplaced.add(partition)
                    del self._next[partition]
                    continue
                self._next[partition] = records[-1].offset + 1
            taken += records
        self._show_lag()
        return taken

    def standing(self) -> Mapping[TopicPartition, int]:
        """Where each placed partition is read on."""
        with self._lock:
            return dict(self._next)

    def epochs(self) -> Mapping[tuple[str, int], int]:
        """(topic, partition) -> epoch in which what was polled was read."""
        with self._lock:
            return dict(self._epochs)

    def commit(self, incoming: Sequence[Incoming] = ()) -> None:
        """Tell the group how far the ledger is. What could not be told is told again a second later.

        No event rests on this: it is for those who watch the group, and tells a topic that was made anew.
        """
        with self._lock:
            for item in incoming:
                partition = TopicPartition(item.position.topic, item.position.partition)
                self._to_commit[partition] = max(self._to_commit.get(partition, 0), item.position.offset + 1)
            offsets = {p: offset for p, offset in self._to_commit.items() if self._owned(p)}
        if not offsets or (not incoming and time.monotonic() < self._commit_after):
            return
        try:
            metadata = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
            self._consumer.commit(metadata, timeout_ms=_ANSWER_MS)
        except KafkaError as error:
            self._commit_after = time.monotonic() + _COMMIT_AGAIN
            log.info("offsets are not committed (%s); the ledger has them", type(error).__name__)
        else:
            self._committed(offsets)

    def _committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """The group has these; from a partition's first commit on, its absence means that the broker lost data."""
        with self._lock:
            self._to_commit = {p: o for p, o in self._to_commit.items() if o != offsets.get(p)}
            first = sorted(self._unmarked & offsets.keys())
        for partition in first:
            self._ledger.committed_once(partition.topic, partition.partition, offsets[partition])
        with self._lock:
            self._unmarked -= set(first)

    def _owned(self, partition: TopicPartition) -> bool:
        return partition in self._consumer.assignment()

    def _show_lag(self) -> None:
        with self._lock:
            standing = dict(self._next)
        for partition, offset in standing.items():
            end = self._consumer.highwater(partition)
            if end is not None:
                metrics.CONSUMER_LAG.labels(partition.partition).set(max(0, end - offset))


def _forget_lag(partition: TopicPartition) -> None:
    try:
        metrics.CONSUMER_LAG.remove(partition.partition)
    except KeyError:
        return  # never shown


def _count(recorded: Recorded, read: int) -> None:
    known = read - recorded.events - recorded.duplicates - recorded.poison
    for outcome, number in (
        (RecordOutcome.EVENT, recorded.events),
        (RecordOutcome.DUPLICATE, recorded.duplicates + known),
        (RecordOutcome.POISON, recorded.poison),
        (RecordOutcome.MISSING, recorded.missing),
    ):
        metrics.RECORDS_CONSUMED.labels(outcome).inc(number)


def _traced(incoming: Sequence[Incoming], began: datetime) -> None:
    """A span for each event that was matched and written to the ledger."""
    if not tracing.on():
        return
    ended = datetime.now(UTC)
    for item in incoming:
        if item.event is not None:
            about = {"careloom__event__id": item.event.event_id, "careloom__resource__type": item.event.resource_type}
            tracing.past("match", item.event.trace, began, ended, "consumer", **about)
