"""Kafka -> ledger -> offset commit: at least once out of Kafka, exactly once in the ledger.

An offset is committed after its rows are; whatever happens between leaves the ledger ahead of the group, and the ledger
is asked where to go on. A rebalance in the middle of a batch does no harm: what two dispatchers read, one records.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from kafka.errors import CorruptRecordError, KafkaError
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from monitoring.metrics import RecordOutcome
from pipelines.config import Config
from pipelines.dispatcher import unreadable
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.poison import PoisonBox
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.session import Session
from pipelines.dispatcher.watched import Watched
from pipelines.dispatcher.writing import Writing
from pipelines.errors import CareloomError
from pipelines.fail_points import fail_point
from pipelines.failures.dependencies import KAFKA
from pipelines.failures.policy import Trouble
from pipelines.kafka.dead_letter_topic import DeadLetterTopic
from pipelines.kafka.topics import ensure_topic
from pipelines.ledger import Incoming, Ledger, Recorded
from pipelines.process import describe
from pipelines.telemetry import tracing

log = logging.getLogger(__name__)


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
        self._watched = Watched(ledger, KAFKA, Trouble.BROKER_UNAVAILABLE)
        self._poison = poison or PoisonBox(DeadLetterTopic(config), backoff)
        self._writing = Writing(ledger, backoff, self._poison)

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set. A broken connection to the broker or the ledger is made anew."""
        try:
            self._run(stop)
        finally:
            self._poison.close()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            metrics.INTAKE_MOVED.set_to_current_time()
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
        session = Session(self._config, self._ledger)
        try:
            session.subscribe()
            while not stop.is_set():
                self._step(session, stop)
                metrics.INTAKE_MOVED.set_to_current_time()
        except CorruptRecordError:
            # Maybe fetched in the very poll that assigned the partition, from where the group stands: that may be far
            # behind the ledger, and every session would come upon it anew. This consumer must not poll again:
            # kafka-python 3.0.12 goes round for ever in what it has failed at.
            session.place()
            session.commit()
            if not self._passed_over(session):
                raise
        finally:
            session.close()

    def _step(self, session: Session, stop: threading.Event) -> None:
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
        epochs = session.epochs()
        read = [self._reader.read(record) for record in records]
        fail_point("dispatcher.consumed")
        incoming = self._poison.copied(records, read, stop)
        recorded = None if incoming is None else self._writing.write(records, incoming, epochs, stop)
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

    def _passed_over(self, session: Session) -> bool:
        """Take what cannot be read as poison, without a copy; the next session reads on behind it. False where all can.

        Raises:
            KafkaError, SQLAlchemyError, ReadBeforeRewind: nothing was taken; it is come upon again.
        """
        epochs = session.epochs()
        incoming = [Incoming(position, None) for position in unreadable.find(self._kafka, session.standing())]
        for item in incoming:
            at, reason = item.position, item.poison.reason
            log.error("poison in %s[%d]@%d: %s: its batch is corrupt", at.topic, at.partition, at.offset, reason)
        if incoming:
            _count(self._ledger.record(incoming, epochs), len(incoming))
        return bool(incoming)


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
