"""Kafka -> ledger -> offset commit: at least once out of Kafka, exactly once in the ledger.

An offset is committed after its rows are; whatever happens between leaves the ledger ahead of the group, and the ledger
is asked where to go on. A rebalance in the middle of a batch does no harm: what two dispatchers read, one records.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError
from sqlalchemy.exc import DataError, SQLAlchemyError

from monitoring import metrics
from monitoring.metrics import RecordOutcome
from pipelines.config import Config
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.matching import KafkaRecord, Reader
from pipelines.dispatcher.positions import Extent, start
from pipelines.dispatcher.pressure import Pressure
from pipelines.errors import CareloomError
from pipelines.fail_points import fail_point
from pipelines.ledger import Incoming, Ledger, Recorded
from pipelines.process import describe
from pipelines.topics import ensure_topic

log = logging.getLogger(__name__)

#: Records a batch, and bytes that are fetched ahead: what bounds this process's memory.
_BATCH = 500
_FETCH_BYTES = 16 * 1024 * 1024
_POLL_MS = 200
#: Seconds for a question to the broker that is asked outside of polling.
_ANSWER_MS = 10_000


class Intake:
    """The thread that reads Kafka.

    Args:
        config: its `kafka` section, and the limits that the topic is made with where it is missing.
        ledger: takes the rows.
        reader: makes them of records.
        pressure: says when to stop reading.
        wake: called after rows were written.
        backoff: after the ledger or the broker failed.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        reader: Reader,
        pressure: Pressure,
        wake: Callable[[], None],
        backoff: Backoff,
    ) -> None:
        self._config = config
        self._kafka = config.kafka
        self._ledger = ledger
        self._reader = reader
        self._pressure = pressure
        self._wake = wake
        self._backoff = backoff

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set. A broken connection to the broker or the ledger is made anew."""
        while not stop.is_set():
            try:
                self._session(stop)
            except (KafkaError, SQLAlchemyError, CareloomError) as error:
                wait = self._backoff.failed()
                log.warning("intake broke off (%s); on in %.1f s", describe(error), wait)
                stop.wait(wait)

    def _session(self, stop: threading.Event) -> None:
        for note in ensure_topic(self._config).notes:
            log.warning("topic %s: %s", self._kafka.topic, note)
        consumer = self._connect()
        try:
            session = _Session(consumer, self._ledger)
            consumer.subscribe([self._kafka.topic], listener=session)
            while not stop.is_set():
                self._step(session, stop)
        finally:
            consumer.close(autocommit=False, timeout_ms=_ANSWER_MS)

    def _step(self, session: _Session, stop: threading.Event) -> None:
        """One poll, and what it brought into the ledger."""
        session.place()
        session.hold(self._pressure.too_high)
        records = session.poll()
        if not records:
            return
        incoming = [self._reader.read(record) for record in records]
        fail_point("dispatcher.consumed")
        recorded = self._record(incoming, stop)
        if recorded is None:
            return  # asked to stop while the ledger was away: nothing is committed, the records come again
        fail_point("dispatcher.recorded")
        _count(recorded, len(incoming))
        self._pressure.added(recorded.work)
        if recorded.work:
            self._wake()
        session.commit(incoming)
        fail_point("dispatcher.committed")

    def _record(self, incoming: Sequence[Incoming], stop: threading.Event) -> Recorded | None:
        """Write a batch, as often as it takes; only this one is held in memory meanwhile. None when asked to stop.

        That the group gives the partitions to somebody else during a long outage does no harm: see `Ledger.record`.
        """
        while True:
            try:
                recorded = self._ledger.record(incoming)
            except DataError:
                return self._one_by_one(incoming)
            except SQLAlchemyError as error:
                wait = self._backoff.failed()
                log.warning("the ledger takes no records (%s); again in %.1f s", type(error).__name__, wait)
                if stop.wait(wait):
                    return None
            else:
                self._backoff.succeeded()
                return recorded

    def _one_by_one(self, incoming: Sequence[Incoming]) -> Recorded:
        """One of these records holds what PostgreSQL cannot keep: that one is poison, the others are not.

        Raises:
            SQLAlchemyError: the ledger failed; the records come again.
        """
        total = Recorded(0, 0, 0, 0)
        for item in incoming:
            try:
                recorded = self._ledger.record([item])
            except DataError:
                where = item.position
                log.warning(
                    "poison in %s[%d]@%d: the ledger cannot keep it", where.topic, where.partition, where.offset
                )
                recorded = self._ledger.record([Incoming(where, None)])
            total = total + recorded
        return total

    def _connect(self) -> Any:
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
            fetch_max_wait_ms=100,
            # started again, a dispatcher takes up its partitions at once; another gets them when this time is over
            group_instance_id=f"{socket.gethostname()}-{self._config.dispatcher.metrics_port}",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=500,
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
                self._next.pop(partition, None)
                _forget_lag(partition)

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
        known = self._ledger.next_offset(partition.topic, partition.partition)
        where = start(known, extent, went_back=partition in self._went_back)
        if where.rewound:
            self._ledger.rewind(partition.topic, partition.partition, where.offset)
            metrics.BROKER_REWINDS.inc()
            log.error(
                "%s[%d]: the ledger had read up to %s, but the broker holds %d to %d, committed %s: it lost data or the"
                " topic was made anew; all that it holds is read",
                partition.topic, partition.partition, known, extent.begin, extent.end, extent.committed,
            )  # fmt: skip
        if not self._owned(partition):
            return
        self._consumer.seek(partition, where.offset)
        if extent.committed is None:
            self._commit({partition: where.offset})
        with self._lock:
            self._unplaced.discard(partition)
            self._went_back.discard(partition)
            self._next[partition] = where.offset

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

    def commit(self, incoming: Sequence[Incoming]) -> None:
        """Tell the group how far the ledger is."""
        offsets: dict[TopicPartition, int] = {}
        for item in incoming:
            partition = TopicPartition(item.position.topic, item.position.partition)
            offsets[partition] = max(offsets.get(partition, 0), item.position.offset + 1)
        self._commit({partition: offset for partition, offset in offsets.items() if self._owned(partition)})

    def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing rests on this: it is for those who watch the group, and tells a topic that was made anew."""
        try:
            metadata = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
            self._consumer.commit(metadata, timeout_ms=_ANSWER_MS)
        except KafkaError as error:
            log.info("offsets are not committed (%s); the ledger has them", type(error).__name__)

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
