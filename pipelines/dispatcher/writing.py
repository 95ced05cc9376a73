"""A batch into the ledger, as often as it takes; what the ledger cannot keep becomes poison, and nothing else does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from sqlalchemy.exc import DataError, SQLAlchemyError

from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.poison import PoisonBox
from pipelines.dispatcher.positions import Epochs
from pipelines.errors import PoisonReason
from pipelines.kafka.envelope import record_time
from pipelines.kafka.records import KafkaRecord
from pipelines.ledger import Incoming, Ledger, Poison, Recorded

log = logging.getLogger(__name__)


class Writing:
    """Writes batches, one after the other.

    Args:
        ledger: takes the rows.
        backoff: after the ledger failed.
        poison: sees to it that a record which the ledger cannot keep is copied.
    """

    def __init__(self, ledger: Ledger, backoff: Backoff, poison: PoisonBox) -> None:
        self._ledger = ledger
        self._backoff = backoff
        self._poison = poison

    def write(
        self, records: Sequence[KafkaRecord], incoming: Sequence[Incoming], epochs: Epochs, stop: threading.Event
    ) -> Recorded | None:
        """Write a batch, as often as it takes; only this one is held in memory meanwhile. None when asked to stop.

        That the group gives the partitions to somebody else during a long outage does no harm: see `Ledger.record`.

        Args:
            records: as read.
            incoming: what they were, in the same order.
            epochs: in which they were read.
            stop: asks to stop.

        Raises:
            ReadBeforeRewind: another dispatcher has found since that the broker lost its data: all is read anew.
        """
        while True:
            try:
                recorded = self._ledger.record(incoming, epochs)
            except DataError:
                return self._one_by_one(records, incoming, epochs, stop)
            except SQLAlchemyError as error:
                wait = self._backoff.failed()
                log.warning("the ledger takes no records (%s); again in %.1f s", type(error).__name__, wait)
                if stop.wait(wait):
                    return None
            else:
                self._backoff.succeeded()
                return recorded

    def _one_by_one(
        self, records: Sequence[KafkaRecord], incoming: Sequence[Incoming], epochs: Epochs, stop: threading.Event
    ) -> Recorded | None:
        """One of these records holds what PostgreSQL cannot keep: that one is poison, the others are not.

        None when asked to stop before it was copied.

        Raises:
            SQLAlchemyError: the ledger failed; the records come again.
        """
        total = Recorded(0, 0, 0, 0)
        for record, item in zip(records, incoming, strict=True):
            try:
                recorded = self._ledger.record([item], epochs)
            except DataError:
                where = item.position
                log.warning(
                    "poison in %s[%d]@%d: the ledger cannot keep it", where.topic, where.partition, where.offset
                )
                reason = Poison(PoisonReason.NOT_STORABLE, record_time(record.timestamp))
                poison = self._poison.copied([record], [Incoming(where, None, poison=reason)], stop)
                if poison is None:
                    return None
                recorded = self._ledger.record(poison, epochs)
            total = total + recorded
        return total
