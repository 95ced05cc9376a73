"""Runs events again: their bytes from Kafka, or from the FHIR server where Kafka has them no more, matched anew.

Every selected event is matched with the scenarios as they are installed now. Where nothing stands in the way, a new
piece of work is added to the ledger; its result has the identity of (event, scenario, scenario version), so that what
was written is recognised and not written again. A scenario whose version has changed since writes new drafts.

Memory is bounded by one page of events and the payload budget; what waits in the ledger, by `dispatcher.max_waiting`:
a replay holds back as the dispatcher does. Killed in the middle it has lost nothing, and is simply called again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fhir_adapters.event import ClinicalEvent
from pipelines.dispatcher.matching import Reader
from pipelines.errors import PayloadGone
from pipelines.kafka.envelope import NotAnEvent
from pipelines.kafka.payloads import PayloadSource
from pipelines.ledger import EventRow, Ledger, Position
from pipelines.ledger.calls import called
from pipelines.ledger.replaying import Selection, Wanted
from pipelines.replay.restoring import NotRestorable

#: Events looked at together.
PAGE = 200
#: How many of each kind are named; all are counted.
NAMED = 100


class Restores(Protocol):
    """`pipelines.replay.restoring.Restorer`, and a fake in tests."""

    async def read(self, event: EventRow) -> ClinicalEvent:
        """See `Restorer.read`."""
        ...

    async def publish(self, event: ClinicalEvent) -> Position:
        """See `Restorer.publish`."""
        ...


@dataclass(slots=True)
class Replayed:
    """How far a replay has come.

    Attributes:
        replay: its number in the ledger; None where nothing is changed (a dry run).
        selected: events that were selected.
        looked_at: of them so far.
        matched: (event, scenario) pairs that they start.
        rows: pieces of work that were added, or would be.
        under_way: left out, as a piece of work of that event and scenario is not finished yet.
        discarded: left out, as a person had given it up.
        parked: left out, as a dead letter is in the way, which a person decides on; `parked_ids` names the first ones.
        restored: events whose bytes were had from the FHIR server again, or could be.
        gone: events whose bytes nobody has any more; `gone_events` names the first of them with the reason.
        held_back: whether it waits for the dispatcher just now.
    """

    replay: int | None = None
    selected: int = 0
    looked_at: int = 0
    matched: int = 0
    rows: int = 0
    under_way: int = 0
    discarded: int = 0
    parked: int = 0
    parked_ids: list[int] = field(default_factory=list)
    restored: int = 0
    gone: int = 0
    gone_events: list[tuple[str, str]] = field(default_factory=list)
    held_back: bool = False


class Replay:
    """One replay.

    Args:
        ledger: where events and work are.
        reader: matches the scenarios that are to run, and no others.
        payloads: the events' bytes.
        restorer: has them again where Kafka has them no more.
        max_waiting: pieces of work that wait beyond which no more are added (`dispatcher.max_waiting`).
        pause: seconds between looks at that number.
        page: events looked at together.
    """

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        payloads: PayloadSource,
        restorer: Restores,
        *,
        max_waiting: int,
        pause: float = 1.0,
        page: int = PAGE,
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._payloads = payloads
        self._restorer = restorer
        self._max_waiting = max_waiting
        self._pause = pause
        self._page = page
        #: Events that were moved behind the others of their instant, and so come by a second time.
        self._moved: set[str] = set()

    async def run(
        self,
        *,
        until: datetime,
        since: datetime | None = None,
        source: str | None = None,
        event_id: str | None = None,
        scenario: str | None = None,
        by: str,
        why: str,
        dry: bool = False,
        progress: Callable[[Replayed], None] = lambda so_far: None,
    ) -> Replayed:
        """Run again what is selected: every condition that is given must hold.

        Args:
            until: events that Kafka had before (timezone-aware).
            since: events that Kafka had at or after.
            source: of this source.
            event_id: this one; it is run again although a person had given its work up.
            scenario: the one that `reader` knows, for the record; None for all.
            by, why: who has it done, and why.
            dry: only say what would be done.
            progress: called after each page, and while it waits.

        Raises:
            LedgerError: the ledger does not answer.
            StepFailed: Kafka does not answer.
            FhirServerError: a source's server, which was to give bytes again, does not answer.
            BrokerUnavailable: Kafka does not take those bytes.
        """
        selection = Selection(sorted(self._reader.types), until, since, source, event_id)
        so_far = Replayed(selected=await called(self._ledger.count_events, selection))
        if not dry:
            chosen = {"until": until, "since": since, "source": source, "event": event_id, "scenario": scenario}
            said = {key: str(value) for key, value in chosen.items() if value is not None}
            so_far.replay = await called(self._ledger.begin_replay, by=by, why=why, chosen=said)
        after: EventRow | None = None
        while events := await called(self._ledger.page_of_events, selection, after, self._page):
            if not dry:
                await self._hold_back(so_far, progress)
            if after is None or after.durable_at != events[0].durable_at:
                self._moved.clear()  # of an earlier instant: they do not come again
            fresh = [event for event in events if event.event_id not in self._moved]
            await self._one_page(fresh, so_far, dry=dry, named=event_id is not None)
            progress(so_far)
            after = events[-1]
        if so_far.replay is not None:
            await called(self._ledger.end_replay, so_far.replay)
        return so_far

    async def _hold_back(self, so_far: Replayed, progress: Callable[[Replayed], None]) -> None:
        while await called(self._ledger.waiting) > self._max_waiting:
            so_far.held_back = True
            progress(so_far)
            await asyncio.sleep(self._pause)
        so_far.held_back = False

    async def _one_page(self, events: Sequence[EventRow], so_far: Replayed, *, dry: bool, named: bool) -> None:
        self._payloads.expect(events)
        wanted: list[Wanted] = []
        for event in events:
            so_far.looked_at += 1
            try:
                value = await self._bytes(event, so_far, dry=dry)
                wanted += [Wanted(event.event_id, match) for match in self._reader.matches(event, value)]
            except (NotRestorable, NotAnEvent) as error:
                so_far.gone += 1
                if len(so_far.gone_events) < NAMED:
                    so_far.gone_events.append((event.event_id, str(error)))
        so_far.matched += len(wanted)
        added = await called(self._ledger.add_replays, so_far.replay, wanted, discarded_too=named)
        so_far.rows += added.rows
        so_far.under_way += added.under_way
        so_far.discarded += added.discarded
        so_far.parked += len(added.parked)
        so_far.parked_ids += added.parked[: NAMED - len(so_far.parked_ids)]

    async def _bytes(self, event: EventRow, so_far: Replayed, *, dry: bool) -> bytes:
        try:
            return await asyncio.to_thread(self._payloads.get, event)
        except PayloadGone:
            found = await self._restorer.read(event)
        if not dry:
            position = await self._restorer.publish(found)
            await called(self._ledger.moved, event.event_id, position)
            self._moved.add(event.event_id)
        so_far.restored += 1
        return found.body
