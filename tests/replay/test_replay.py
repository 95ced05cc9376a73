"""A replay on a real ledger, with bytes and servers of memory: what is added, what is left out, what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from fhir_adapters.event import ClinicalEvent
from pipelines.dispatcher.matching import Reader
from pipelines.errors import ErrorClass, PayloadGone, StepFailed
from pipelines.ledger import EventRow, Incoming, Inference, Ledger, Match, Position, State, Written
from pipelines.replay.replay import Replay, Replayed
from pipelines.replay.restoring import NotRestorable

NOTE = Match("in_visit.note", "1", "in_visit")
WATCH = Match("in_visit.watch", "1", "in_visit")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BODY = b'{"resourceType":"Encounter"}'


class Bytes:
    """Kafka of memory: gives the same bytes for every event but those that are `gone`."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.away = False
        self.most = 0
        self._expected: set[str] = set()

    def expect(self, events: Iterable[EventRow]) -> None:
        self._expected |= {event.event_id for event in events}
        self.most = max(self.most, len(self._expected))

    def has(self, event: EventRow) -> bool:
        return False

    def get(self, event: EventRow) -> bytes:
        self._expected.discard(event.event_id)
        if self.away:
            raise StepFailed(ErrorClass.KAFKA_UNAVAILABLE, "away")
        if event.event_id in self.gone:
            raise PayloadGone("retention has taken it")
        return BODY

    def close(self) -> None:
        """Nothing to close."""


class Servers:
    """A restorer of memory: has the versions of the events in `has`."""

    def __init__(self) -> None:
        self.has: set[str] = set()
        self.published: list[str] = []

    async def read(self, event: EventRow) -> ClinicalEvent:
        if event.event_id not in self.has:
            raise NotRestorable("the FHIR server has this version no more")
        return ClinicalEvent("h", "R4", "Encounter", event.event_id, "1", None, None, BODY)

    async def publish(self, event: ClinicalEvent) -> Position:
        assert event.resource_id is not None
        self.published.append(event.resource_id)
        return Position("t", 0, 1000 + len(self.published))


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    """A ledger that parks at the first failure."""
    return Ledger(ledger_engine, max_attempts=1)


@pytest.fixture
def payloads() -> Bytes:
    return Bytes()


@pytest.fixture
def servers() -> Servers:
    return Servers()


def enter(ledger: Ledger, count: int, matches: Sequence[Match] = (NOTE,), *, first: int = 0) -> None:
    """Events e0, e1, ... of a patient each, one a minute."""
    batch = []
    for offset in range(first, first + count):
        at = NOW + timedelta(minutes=offset)
        event = EventRow(f"e{offset}", "h", "R4", "Encounter", f"e{offset}", "1", None, "written", f"p{offset}",
                         Position("t", 0, offset), at, at)  # fmt: skip
        batch.append(Incoming(event.position, event, matches))
    ledger.record(batch)


def finish(ledger: Ledger, scenario: str = NOTE.scenario) -> int:
    done = 0
    while run := ledger.take_run(scenario, 100):
        for item in ledger.claim(run.run_id, 60):
            ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written((), 0, 1))
            done += 1
    return done


@pytest.fixture
def replay(ledger: Ledger, payloads: Bytes, servers: Servers) -> Any:
    """Runs a replay by the scenarios given: `replay(NOTE, since=...)`."""

    def run(*matches: Match, max_waiting: int = 1000, page: int = 3, **chosen: Any) -> Replayed:
        reader = Reader({"Encounter"}, lambda resource: matches or (NOTE,))
        made = Replay(ledger, reader, payloads, servers, max_waiting=max_waiting, pause=0.001, page=page)
        return asyncio.run(made.run(**{"until": datetime.now(UTC), "by": "wu", "why": "x", **chosen}))

    yield run
    assert ledger.account().unaccounted == 0


def test_all_that_is_selected_is_run_again_a_page_at_a_time(ledger: Ledger, payloads: Bytes, replay) -> None:
    enter(ledger, 10)
    finish(ledger)
    seen: list[tuple[int, int]] = []
    done = replay(progress=lambda so_far: seen.append((so_far.looked_at, so_far.selected)))
    assert (done.selected, done.looked_at, done.matched, done.rows) == (10, 10, 10, 10)
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert payloads.most == 3
    assert finish(ledger) == 10


def test_a_scenario_that_is_new_gets_what_it_has_missed(ledger: Ledger, replay) -> None:
    enter(ledger, 2)
    finish(ledger)
    done = replay(WATCH, scenario=WATCH.scenario)
    assert done.rows == 2
    assert ledger.account().work == {State.WRITTEN: 2, State.WAITING: 2}


def test_since_until_and_event_narrow_it(ledger: Ledger, replay) -> None:
    enter(ledger, 6)
    finish(ledger)
    assert replay(since=NOW + timedelta(minutes=4)).rows == 2
    assert replay(until=NOW + timedelta(minutes=1)).rows == 1
    assert replay(event_id="e2").rows == 1


def test_nothing_is_changed_by_a_dry_run(ledger: Ledger, payloads: Bytes, servers: Servers, replay) -> None:
    enter(ledger, 3)
    finish(ledger)
    payloads.gone, servers.has = {"e1", "e2"}, {"e1"}
    done = replay(dry=True)
    assert (done.replay, done.rows, done.restored, done.gone) == (None, 2, 1, 1)
    assert servers.published == []
    assert ledger.account().work == {State.WRITTEN: 3}


def test_bytes_that_kafka_has_no_more_come_from_the_server_and_move(
    ledger: Ledger, payloads: Bytes, servers: Servers, replay
) -> None:
    enter(ledger, 3)
    finish(ledger)
    payloads.gone, servers.has = {"e0", "e2"}, {"e2"}
    done = replay()
    assert (done.rows, done.restored, done.gone) == (2, 1, 1)
    assert done.gone_events == [("e0", "the FHIR server has this version no more")]
    run = ledger.take_run(NOTE.scenario, 10)
    assert run is not None
    where = {item.event.event_id: item.event.position.offset for item in ledger.claim(run.run_id, 60)}
    assert where == {"e1": 1, "e2": 1001}


def test_what_is_not_finished_goes_on_by_itself(ledger: Ledger, replay) -> None:
    enter(ledger, 2)
    assert replay().under_way == 2
    assert replay().rows == 0


def test_a_dead_letter_in_the_way_is_named_and_its_bytes_are_had_again_all_the_same(
    ledger: Ledger, payloads: Bytes, servers: Servers, replay
) -> None:
    enter(ledger, 1)
    run = ledger.take_run(NOTE.scenario, 1)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    ledger.failed(item, StepFailed(ErrorClass.PAYLOAD_INVALID, "gone"))
    payloads.gone, servers.has = {"e0"}, {"e0"}
    done = replay(event_id="e0")
    assert (done.rows, done.parked, done.parked_ids, done.restored) == (0, 1, [item.id], 1)
    ledger.decide_dead_letter(item.id, State.WAITING, by="wu", why="its bytes are there again")
    run = ledger.take_run(NOTE.scenario, 1)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    assert item.event.position.offset == 1001


def test_too_much_in_the_ledger_holds_a_replay_back_until_it_is_less(ledger: Ledger, replay) -> None:
    enter(ledger, 9)
    finish(ledger)
    held: list[bool] = []

    def watch(so_far: Replayed) -> None:
        held.append(so_far.held_back)
        if so_far.held_back:
            finish(ledger)

    done = replay(max_waiting=2, progress=watch)
    assert done.rows == 9
    assert held.count(True) == 2
    assert not done.held_back


def test_a_broker_that_is_away_ends_it_and_what_was_added_stays(ledger: Ledger, payloads: Bytes, replay) -> None:
    enter(ledger, 6)
    finish(ledger)

    def away(so_far: Replayed) -> None:
        payloads.away = True

    with pytest.raises(StepFailed, match="away"):
        replay(progress=away)
    assert ledger.account().work == {State.WRITTEN: 6, State.WAITING: 3}
    payloads.away = False
    done = replay()
    assert (done.rows, done.under_way) == (3, 3)


def test_a_body_that_no_scenario_had_opened_before_may_turn_out_to_be_none(
    ledger: Ledger, payloads: Bytes, replay
) -> None:
    enter(ledger, 1, ())
    payloads.get = lambda event: b"{"  # type: ignore[method-assign]
    done = replay(WATCH)
    assert (done.rows, done.gone_events) == (0, [("e0", "the value is not JSON")])
