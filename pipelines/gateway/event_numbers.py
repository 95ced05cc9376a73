"""Notices what a subscription says it sent and what never came: the event numbers of FHIR Subscriptions.

Numbers count from 1 in each subscription (https://hl7.org/fhir/R5/subscriptionstatus.html, eventNumber); a heartbeat
carries the last one. A number that was jumped over is counted, logged and repaired by a search. Notifications overtake
each other, so what came within a moment is put in order first; a gap can still be a false alarm, and its search then
finds nothing new.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from fhir_adapters.notification import Kind, Notification
from monitoring.metrics import EVENT_NUMBER_GAPS, EVENTS_MISSED, SUBSCRIPTION_ERRORS
from pipelines.ledger import Ledger

log = logging.getLogger(__name__)

REORDERING = 1.0
"""Seconds within which notifications may overtake each other without looking like a gap."""

_WAITING = 10_000
_COVERED = "a gap would be found by the search at the next interval"
_STATUS_ONLY = (Kind.HANDSHAKE, Kind.HEARTBEAT, Kind.QUERY_STATUS)


class EventNumbers:
    """Keeps the event numbers of all subscriptions in the ledger, beside the requests and never in their way.

    Args:
        ledger: where the last number of each subscription is kept.
        on_gap: called with the source's name when something was missed; returns at once.
        reordering: see `REORDERING`.
    """

    def __init__(self, ledger: Ledger, on_gap: Callable[[str], None], *, reordering: float = REORDERING) -> None:
        self._ledger = ledger
        self._on_gap = on_gap
        self._reordering = reordering
        self._queue: asyncio.Queue[tuple[str, Notification]] = asyncio.Queue(_WAITING)

    def note(self, source: str, notification: Notification) -> None:
        """Take what a notification says; call it after Kafka has the events. Never waits, never fails."""
        if notification.failed:
            SUBSCRIPTION_ERRORS.labels(source).inc()
            log.warning("source %s says that its subscription is in error", source)
        try:
            self._queue.put_nowait((source, notification))
        except asyncio.QueueFull:
            log.warning("event number of source %s not noted, the ledger is too slow; %s", source, _COVERED)

    async def run(self) -> None:
        """Work through what was noted, until cancelled."""
        while True:
            noted = [await self._queue.get()]
            await asyncio.sleep(self._reordering)
            while not self._queue.empty():
                noted.append(self._queue.get_nowait())
            try:
                for source, notification in sorted(noted, key=_number):
                    await self._work(source, notification)
            finally:
                for _ in noted:
                    self._queue.task_done()

    async def settled(self) -> None:
        """Wait until everything noted so far is worked through."""
        await self._queue.join()

    async def _work(self, source: str, notification: Notification) -> None:
        try:
            missed = await asyncio.to_thread(self._note, source, notification)
        except SQLAlchemyError as error:
            log.warning("event number of source %s not noted (%s); %s", source, type(error).__name__, _COVERED)
            return
        if missed:
            EVENT_NUMBER_GAPS.labels(source).inc()
            EVENTS_MISSED.labels(source).inc(missed)
            log.warning("source %s: %d event numbers were jumped over; searching", source, missed)
            self._on_gap(source)

    def _note(self, source: str, notification: Notification) -> int:
        """Returns how many events were missed."""
        missed = sum(
            self._ledger.event_number(source, notification.subscription, number)
            for number in sorted(notification.numbers)
        )
        if notification.kind in _STATUS_ONLY:
            return missed + self._note_status(source, notification)
        if not notification.numbers and notification.events_since_start is not None:
            missed += self._ledger.event_number(source, notification.subscription, notification.events_since_start)
        return missed

    def _note_status(self, source: str, notification: Notification) -> int:
        """What brings no event carries the number of the last event sent, and we should have had that one."""
        number = notification.events_since_start
        if number is None:
            return 0
        before = next(
            (
                int(row.last_event_number)
                for row in self._ledger.subscription_gaps()
                if (row.source, row.subscription) == (source, notification.subscription)
            ),
            None,
        )
        if number > 0 or before is None:
            self._ledger.event_number(source, notification.subscription, number)
        return max(number - before, 0) if before is not None else 0


def _number(noted: tuple[str, Notification]) -> int:
    """The last event that the notification knows of."""
    _, notification = noted
    return max((*notification.numbers, notification.events_since_start or 0))
