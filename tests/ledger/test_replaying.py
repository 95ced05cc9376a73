"""Replay in the ledger: finished rows stay as they are, new ones come beside them, and the account stays exact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, StepFailed
from pipelines.ledger import EventRow, Inference, Ledger, Match, Position, State, Written
from pipelines.ledger.fold import fold_all
from pipelines.ledger.replaying import Added, Selection, Wanted

NOTE = Match("in_visit.note", "1", "in_visit")
START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=1)


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    """A ledger that parks at the first failure."""
    return Ledger(ledger_engine, max_attempts=1)


def finish(ledger: Ledger, size: int = 100) -> list[str]:
    """Write everything that is ready; returns the identities."""
    done = []
    while run := ledger.take_run(NOTE.scenario, size):
        for item in ledger.claim(run.run_id, 60):
            ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written(("Task/1",), 1, 0))
            done.append(item.identity)
        ledger.close_finished_runs()
    return done


def wanted(*events: EventRow, version: str = "1") -> list[Wanted]:
    return [Wanted(event.event_id, Match(NOTE.scenario, version, NOTE.stage)) for event in events]


def begin(ledger: Ledger) -> int:
    return ledger.begin_replay(by="wu", why="x", chosen={"since": "1d"})


def test_a_replay_adds_rows_of_the_same_identity_and_changes_none(ledger: Ledger, ledger_engine: Engine, make) -> None:
    events = [make(offset, patient=f"p{offset}") for offset in range(3)]
    ledger.record(events)
    first = finish(ledger)

    def rows() -> list[object]:
        with ledger_engine.connect() as connection:
            return list(connection.execute(text("SELECT * FROM work WHERE replay = 0 ORDER BY id")))

    before = rows()
    assert ledger.add_replays(begin(ledger), wanted(*(e.event for e in events))) == Added(rows=3)
    assert sorted(finish(ledger)) == sorted(first)
    assert rows() == before
    account = ledger.account()
    assert (account.matches, account.work, account.unaccounted) == (6, {State.WRITTEN: 6}, 0)
    fold_all(ledger_engine)
    assert ledger.account().unaccounted == 0


def test_killed_in_the_middle_of_a_replay_the_account_holds_and_the_rest_can_be_done(ledger: Ledger, make) -> None:
    events = [make(offset, patient=f"p{offset}").event for offset in range(4)]
    ledger.record([make(offset, patient=f"p{offset}") for offset in range(4)])
    finish(ledger)
    ledger.add_replays(begin(ledger), wanted(*events[:2]))
    assert ledger.account().unaccounted == 0  # killed here: no end was written
    assert ledger.add_replays(begin(ledger), wanted(*events)) == Added(rows=2, under_way=2)
    assert ledger.account().matches == 4 + 2 + 2
    assert ledger.account().unaccounted == 0


def test_the_same_replay_adds_a_row_once(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    finish(ledger)
    replay = begin(ledger)
    assert ledger.add_replays(replay, wanted(make(0).event)).rows == 1
    finish(ledger)
    assert ledger.add_replays(replay, wanted(make(0).event)).rows == 0
    assert ledger.account().unaccounted == 0


def test_what_is_parked_is_named_what_was_given_up_is_left_unless_it_is_named(ledger: Ledger, make) -> None:
    parked, given_up = make(0, patient="a"), make(1, patient="b")
    ledger.record([parked, given_up])
    run = ledger.take_run(NOTE.scenario, 10)
    assert run is not None
    for item in ledger.claim(run.run_id, 60):
        ledger.failed(item, StepFailed(ErrorClass.SCENARIO_ERROR, "no"))
    first, second = (letter.id for letter in ledger.dead_letters())
    ledger.decide_dead_letter(second, State.DISCARDED, by="wu", why="x")
    both = wanted(parked.event, given_up.event)
    assert ledger.add_replays(begin(ledger), both) == Added(rows=0, discarded=1, parked=(first,))
    assert ledger.add_replays(begin(ledger), both, discarded_too=True) == Added(rows=1, parked=(first,))
    assert ledger.account().unaccounted == 0


def test_a_scenario_whose_version_changed_makes_work_of_its_own_identity(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    [before] = finish(ledger)
    ledger.add_replays(begin(ledger), wanted(make(0).event, version="2"))
    [after] = finish(ledger)
    assert (before.rpartition(":")[2], after.rpartition(":")[2]) == ("1", "2")
    assert before.rpartition(":")[0] == after.rpartition(":")[0]


def test_a_replay_of_a_superseded_version_becomes_stale(ledger: Ledger, make) -> None:
    old = make(0, resource="r", version="1", updated=0)
    ledger.record([old])
    finish(ledger)
    ledger.record([make(1, resource="r", version="2", updated=9, scenarios=())])
    ledger.add_replays(begin(ledger), wanted(old.event))
    assert finish(ledger) == []
    assert ledger.account().work == {State.WRITTEN: 1, State.STALE: 1}


def test_a_dry_run_says_what_would_be_and_adds_nothing(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    finish(ledger)
    assert ledger.add_replays(None, wanted(make(0).event)) == Added(rows=1)
    assert ledger.account().work == {State.WRITTEN: 1}


def test_its_times_begin_with_the_replay(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(0)])
    finish(ledger)
    ledger.add_replays(begin(ledger), wanted(make(0).event))
    with ledger_engine.connect() as connection:
        query = text("SELECT received_at > now() - interval '1 hour' FROM work WHERE replay > 0")
        assert connection.execute(query).scalar_one() is True


def test_events_come_page_by_page_in_the_order_in_which_kafka_had_them(ledger: Ledger, make) -> None:
    made = [make(offset, partition=offset % 2, patient=f"p{offset}") for offset in range(9)]
    for partition in (0, 1):
        ledger.record([item for item in made if item.position.partition == partition])
    ledger.record([make(20, partition=3, change="deleted")])
    chosen = Selection(["Encounter"], LATER)
    assert ledger.count_events(chosen) == 9
    seen: list[EventRow] = []
    while page := ledger.page_of_events(chosen, seen[-1] if seen else None, 2):
        seen += page
    assert [event.position.offset for event in seen] == list(range(9))


@pytest.mark.parametrize(
    ("narrowed", "offsets"),
    [
        ({"since": START + timedelta(milliseconds=3)}, [3, 4]),
        ({"until": START + timedelta(milliseconds=2)}, [0, 1]),
        ({"source": "elsewhere"}, []),
        ({"types": ["Appointment"]}, []),
        ({"event_id": "e2"}, [2]),
    ],
)
def test_events_are_selected_by_what_is_asked_for(ledger: Ledger, make, narrowed, offsets: list[int]) -> None:
    ledger.record([make(offset, event_id=f"e{offset}") for offset in range(5)])
    chosen = Selection(**{"types": ["Encounter"], "until": LATER, **narrowed})
    assert [event.position.offset for event in ledger.page_of_events(chosen, None, 100)] == offsets
    assert ledger.count_events(chosen) == len(offsets)


def test_an_event_whose_bytes_moved_is_found_where_they_are(ledger: Ledger, make) -> None:
    ledger.record([make(0, event_id="e")])
    ledger.moved("e", Position("events", 5, 77))
    [event] = ledger.page_of_events(Selection(["Encounter"], LATER), None, 10)
    assert event.position == Position("events", 5, 77)
    assert (ledger.knows("e"), ledger.knows("f")) == (True, False)
