"""Poison on its way into the ledger: each is copied to the dead-letter topic before it counts as read.

At least once: a dispatcher that ends between the two copies it again. While the broker is away nothing goes on, as
nothing can be read either; only one batch is held meanwhile. A broker that answers and takes no copy is asked for a
while; then the records are taken without a copy, which the ledger shows, as one writer's rubbish must not hold up the
patients behind it: the records themselves stay in their own topic as long as its retention lets them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from monitoring import metrics
from monitoring.metrics import CopyOutcome
from pipelines.dispatcher.backoff import Backoff
from pipelines.errors import PoisonReason
from pipelines.fail_points import fail_point
from pipelines.kafka.dead_letter_topic import CopyRefused
from pipelines.kafka.records import KafkaRecord
from pipelines.kafka.topics import BrokerUnavailable
from pipelines.ledger import Incoming, Position

log = logging.getLogger(__name__)

#: Seconds that a broker which refuses copies is asked again.
PATIENCE = 30.0


class Copies(Protocol):
    """Where copies go: `pipelines.kafka.dead_letter_topic.DeadLetterTopic`, and a fake in tests."""

    def copy(self, records: Sequence[tuple[KafkaRecord, PoisonReason]]) -> list[Position]:
        """See `DeadLetterTopic.copy`."""
        ...

    def close(self) -> None:
        """See `DeadLetterTopic.close`."""
        ...


class PoisonBox:
    """Sees to it that poison is copied.

    Args:
        topic: takes the copies.
        backoff: between tries.
        patience: seconds that a broker which refuses copies is asked again; after that, once for each batch.
    """

    def __init__(self, topic: Copies, backoff: Backoff, *, patience: float = PATIENCE) -> None:
        self._topic = topic
        self._backoff = backoff
        self._patience = patience
        self._refused_since: float | None = None

    def copied(
        self, records: Sequence[KafkaRecord], incoming: Sequence[Incoming], stop: threading.Event
    ) -> list[Incoming] | None:
        """What came in, with the place of each poison record's copy; None when asked to stop before all had one.

        Args:
            records: as read.
            incoming: what they were, in the same order.
            stop: asks to stop.
        """
        poisoned = [number for number, item in enumerate(incoming) if item.event is None]
        found = list(incoming)
        if not poisoned:
            return found
        places = self._copy([(records[n], incoming[n].poison.reason) for n in poisoned], stop)
        if places is None:
            return None
        for number, place in zip(poisoned, places, strict=True):
            found[number] = replace(found[number], poison=replace(found[number].poison, copy=place))
        fail_point("dispatcher.dead_lettered")
        return found

    def close(self) -> None:
        """Give back the connection."""
        self._topic.close()

    def _copy(
        self, records: Sequence[tuple[KafkaRecord, PoisonReason]], stop: threading.Event
    ) -> Sequence[Position | None] | None:
        while True:
            try:
                places = self._topic.copy(records)
            except BrokerUnavailable as error:
                self._refused_since = None
                wait = self._backoff.failed()
                log.warning("no copies of dead letters yet (%s); again in %.1f s", error, wait)
            except CopyRefused as error:
                if self._given_up():
                    return self._one_by_one(records)
                wait = self._backoff.failed()
                log.warning("%s; again in %.1f s", error, wait)
            else:
                self._backoff.succeeded()
                self._refused_since = None
                metrics.DEAD_LETTER_COPIES.labels(CopyOutcome.COPIED).inc(len(places))
                return places
            if stop.wait(wait):
                return None

    def _given_up(self) -> bool:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        return now - self._refused_since >= self._patience

    def _one_by_one(self, records: Sequence[tuple[KafkaRecord, PoisonReason]]) -> list[Position | None]:
        """What can be copied of a batch in which something cannot be."""
        places: list[Position | None] = []
        for record, reason in records:
            try:
                places += self._topic.copy([(record, reason)])
                metrics.DEAD_LETTER_COPIES.labels(CopyOutcome.COPIED).inc()
            except (BrokerUnavailable, CopyRefused) as error:
                places.append(None)
                metrics.DEAD_LETTER_COPIES.labels(CopyOutcome.REFUSED).inc()
                log.warning("%s[%d]@%d has no copy: %s", record.topic, record.partition, record.offset, error)
        return places
