"""A consumer's life in its group: which partitions it has, where each is read on, and what the group is told of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from monitoring import metrics
from pipelines.config import Config
from pipelines.dispatcher.consumer import ANSWER_MS, BATCH, connect
from pipelines.dispatcher.positions import Epochs, Extent, start
from pipelines.kafka.records import KafkaRecord
from pipelines.kafka.topics import BrokerUnavailable
from pipelines.ledger import Incoming, Ledger
from pipelines.ledger.rows import Standing

log = logging.getLogger(__name__)

_POLL_MS = 200
#: Seconds between two questions to the broker where a partition ends, while nothing is fetched from it.
_ENDS_AGAIN = 2.0
#: Seconds after which offsets that could not be committed are committed again.
_COMMIT_AGAIN = 1.0


class Session(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """One consumer's life: which partitions it has, where each stands, and whether they are held.

    The listener's methods are called by the consumer's own thread; they only take notes.

    Args:
        config: where the broker is, which topic is read in which group, and who this dispatcher is.
        ledger: knows where each partition is to be read on.

    Raises:
        KafkaError: the broker does not answer.
    """

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._topic = config.kafka.topic
        self._consumer = connect(config)
        self._ledger = ledger
        self._lock = threading.Lock()
        self._unplaced: set[TopicPartition] = set()
        self._went_back: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}
        self._epochs: dict[tuple[str, int], int] = {}
        self._to_commit: dict[TopicPartition, int] = {}
        self._unmarked: set[TopicPartition] = set()
        self._commit_after = float("-inf")
        self._ends: dict[TopicPartition, int] = {}
        self._ends_after = float("-inf")

    def subscribe(self) -> None:
        """Join the group.

        Raises:
            BrokerUnavailable: the broker does not say yet which partitions the topic has.
        """
        # kafka-python 3.0.12: a leader that joins before it knows the topic assigns nothing, and may stay so
        if not self._consumer.partitions_for_topic(self._topic):
            raise BrokerUnavailable(f"the broker does not say which partitions {self._topic} has")
        self._consumer.subscribe([self._topic], listener=self)

    def close(self) -> None:
        """Let go of the broker; what was not committed stays so, and the ledger has it."""
        self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

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
        # the ledger first: what the broker says later lies behind it, however long this process stands still in between
        standings = [self._ledger.standing(partition.topic, partition.partition) for partition in new]
        begins = self._consumer.beginning_offsets(new, timeout_ms=ANSWER_MS)
        ends = self._consumer.end_offsets(new, timeout_ms=ANSWER_MS)
        for partition, standing in zip(new, standings, strict=True):
            committed = self._consumer.committed(partition, timeout_ms=ANSWER_MS)
            self._place(partition, Extent(begins[partition], ends[partition], committed), standing)

    def _place(self, partition: TopicPartition, extent: Extent, standing: Standing) -> None:
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
        for partition, records in self._consumer.poll(timeout_ms=_POLL_MS, max_records=BATCH).items():
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

    def epochs(self) -> Epochs:
        """In which what was polled was read."""
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
            self._consumer.commit(metadata, timeout_ms=ANSWER_MS)
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
        """What is fetched tells where its partition ends; while they are held, the broker is asked."""
        standing, held = self.standing(), set(self._consumer.paused())
        if held and time.monotonic() >= self._ends_after:
            self._ends = self._consumer.end_offsets(sorted(held), timeout_ms=ANSWER_MS)
            self._ends_after = time.monotonic() + _ENDS_AGAIN
        for partition, offset in standing.items():
            end = self._ends.get(partition) if partition in held else self._consumer.highwater(partition)
            if end is not None:
                metrics.CONSUMER_LAG.labels(partition.partition).set(max(0, end - offset))


def _forget_lag(partition: TopicPartition) -> None:
    try:
        metrics.CONSUMER_LAG.remove(partition.partition)
    except KeyError:
        return  # never shown
