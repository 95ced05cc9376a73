"""Finds what was never notified: an overlapping `_lastUpdated` search, at the start, at intervals, and when asked for.

Up to when a source was searched stands in the ledger and moves on only after Kafka has acknowledged what was found. The
mark is the server's own time at the search's start, so that a clock that differs from ours loses nothing; the overlap
covers what was committed late. A deletion leaves nothing to be found: only a notification tells of it.
A mark that somebody sets back by hand, since Kafka lost records, has what this process remembers sent again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from fhir_adapters.errors import FhirServerError
from fhir_adapters.event import ClinicalEvent
from monitoring.metrics import (
    EVENTS_REFUSED,
    RECONCILE_ERRORS,
    RECONCILE_FOUND,
    RECONCILE_LAST_SUCCESS,
    Refusal,
    Way,
)
from pipelines.config import Source
from pipelines.gateway.hospital import Hospital
from pipelines.gateway.single_owner import SingleOwner
from pipelines.gateway.submission import ResourceInvalid, Submission
from pipelines.kafka.producer import RecordTooLarge
from pipelines.kafka.topics import BrokerUnavailable, TopicUnusable
from pipelines.ledger import Ledger

log = logging.getLogger(__name__)

_BATCH = 100
"""Events awaited together."""

#: Why a search may fail and be made again later.
FAILURES = (FhirServerError, SQLAlchemyError, BrokerUnavailable, TopicUnusable)


class NotBegun(Exception):
    """The source has no mark yet: what happened before careloom was there is history and not to be searched for."""


class Reconciler:
    """Searches sources for what was never notified.

    Args:
        sources: those with a FHIR server.
        hospitals: source -> its server.
        types: resource types that are to be heard of: what scenarios wait for, and Task.
        ledger: knows the events and keeps the marks.
        submission: the way into Kafka.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        hospitals: Mapping[str, Hospital],
        types: Iterable[str],
        ledger: Ledger,
        submission: Submission,
    ) -> None:
        self._sources = {source.name: source for source in sources if source.name in hospitals}
        self._hospitals = hospitals
        self._types = tuple(sorted(types))
        self._ledger = ledger
        self._submission = submission
        self._turns = {name: asyncio.Lock() for name in self._sources}
        self._marks: dict[str, datetime] = {}
        self._next: dict[str, asyncio.Task[int]] = {}

    async def begin(self, name: str) -> None:
        """Set the source's first mark where it has none; to be done before its subscriptions are registered.

        It lies one overlap ahead of the server's time, so that the first search reaches back to now and no further.

        Raises:
            FhirServerError, SQLAlchemyError: not now.
        """
        if await asyncio.to_thread(self._ledger.reconciled_until, name) is None:
            now = await self._hospitals[name].time()
            overlap = timedelta(seconds=self._sources[name].reconcile_overlap)
            await asyncio.to_thread(self._ledger.set_reconciled_until, name, now + overlap)

    async def search(self, name: str) -> int:
        """Search a source for everything since its mark; returns how many events were found that nobody had told of.

        A search that has not begun yet serves all who ask for one meanwhile; one that is under way does not, as what
        they ask for may have come after it looked.

        Raises:
            NotBegun: the source has no mark.
            FhirServerError, SQLAlchemyError, BrokerUnavailable, TopicUnusable: not now; the mark is where it was.
        """
        return await asyncio.shield(self._next_search(name))

    def search_soon(self, name: str) -> None:
        """Have a search made beside what is going on; its failure is counted, and the next interval repeats it."""
        if name in self._sources:
            self._next_search(name)

    async def run(self, name: str, owner: SingleOwner) -> None:
        """Search a source at once and then at its interval, until cancelled; while another gateway does, wait."""
        every = self._sources[name].reconcile_every
        while every:
            try:
                if await asyncio.to_thread(owner.held):
                    await self.search(name)
            except (*FAILURES, NotBegun):
                pass  # counted and logged where it happened
            await asyncio.sleep(every * random.uniform(0.9, 1.1))  # noqa: S311 not a secret

    def _next_search(self, name: str) -> asyncio.Task[int]:
        if name not in self._next:
            self._next[name] = asyncio.create_task(self._in_turn(name), name=f"reconcile-{name}")
            self._next[name].add_done_callback(_look_at)
        return self._next[name]

    async def _in_turn(self, name: str) -> int:
        async with self._turns[name]:
            self._next.pop(name, None)
            try:
                found = await self._search(name)
            except FAILURES as error:
                RECONCILE_ERRORS.labels(name).inc()
                log.warning("search of source %s failed (%s: %s)", name, type(error).__name__, _safe(error))
                raise
            RECONCILE_LAST_SUCCESS.labels(name).set_to_current_time()
            if found:
                log.info("search of source %s found %d events that were never notified", name, found)
            return found

    async def _search(self, name: str) -> int:
        source, hospital = self._sources[name], self._hospitals[name]
        mark = await asyncio.to_thread(self._ledger.reconciled_until, name)
        if mark is None:
            raise NotBegun(name)
        if mark < self._marks.get(name, mark):
            log.warning("source %s is searched again from %s on", name, mark.isoformat(timespec="seconds"))
            self._submission.forget()
        now = await hospital.time()
        since = mark - timedelta(seconds=source.reconcile_overlap)
        found = 0
        for resource_type in self._types:
            async for events, unusable in hospital.changed_since(resource_type, since):
                EVENTS_REFUSED.labels(name, Refusal.NOT_FHIR).inc(unusable)
                for i in range(0, len(events), _BATCH):
                    found += await self._take(source, events[i : i + _BATCH])
        await asyncio.to_thread(self._ledger.set_reconciled_until, name, now)
        self._marks[name] = now
        return found

    async def _take(self, source: Source, events: list[ClinicalEvent]) -> int:
        await self._submission.settled(event.identity for event in events)  # its notification may be faster than we
        new = [event for event in events if not self._submission.remembers(event.identity)]
        if not new:
            return 0
        known = await asyncio.to_thread(self._ledger.known, [event.identity for event in new])
        new = [event for event in new if event.identity not in known]
        try:
            taken = await self._submit(source, new)
        except (ResourceInvalid, RecordTooLarge):
            taken = sum([await self._submit_alone(source, event) for event in new])
        RECONCILE_FOUND.labels(source.name).inc(taken)
        return taken

    async def _submit(self, source: Source, events: list[ClinicalEvent]) -> int:
        return await self._submission.submit(source, events, way=Way.RECONCILE, received_at=datetime.now(UTC))

    async def _submit_alone(self, source: Source, event: ClinicalEvent) -> int:
        """One event of a batch that was refused: what cannot be taken is counted and holds nobody else back."""
        try:
            return await self._submit(source, [event])
        except ResourceInvalid:
            EVENTS_REFUSED.labels(source.name, Refusal.INVALID_RESOURCE).inc()
        except RecordTooLarge:
            EVENTS_REFUSED.labels(source.name, Refusal.TOO_LARGE).inc()
        return 0


def _safe(error: Exception) -> str:
    """Our own errors name no patient; a driver's message may hold anything."""
    return "the ledger" if isinstance(error, SQLAlchemyError) else str(error)


def _look_at(task: asyncio.Task[int]) -> None:
    """Read the outcome of a search that nobody may be waiting for, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()
