"""Runs that stay: what they may take, when they must leave, and that nobody loses or doubles a row by it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, LeaseLost, StepFailed
from pipelines.ledger import Inference, Ledger, State, Written
from pipelines.ledger.staying import Stayer

NOTE = "in_visit.note"
DRAFTS = Inference({"drafts": []}, {})
DONE = Written(("Task/1",), 1, 0)


def begins(ledger: Ledger, *, rank: int = 3, most: int = 2, slots: int = 4, scenario: str = NOTE) -> Stayer:
    """A run of what is ready, whose rows are written, and which stays."""
    run = ledger.take_run(scenario, 100)
    assert run is not None
    ledger.run_posted(run.run_id)
    for item in ledger.claim(run.run_id, 60):
        ledger.written(ledger.inferred(item, DRAFTS), DONE)
    stayer = Stayer.new(run.run_id, rank=rank, most=most, slots=slots, seconds=5)
    assert ledger.stay(stayer, begins=True)
    return stayer


def offsets(items: Any) -> list[int]:
    return [item.event.position.offset for item in items]


def age(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_a_run_that_stays_is_open_takes_what_comes_and_is_closed_when_it_leaves(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    stayer = begins(ledger)
    assert ledger.close_finished_runs() == []
    assert ledger.take_more(stayer, 100, 60) == []
    ledger.record([make(1), make(2, patient="b")])
    [backlog] = ledger.backlog()
    assert (backlog.open_runs, backlog.staying, backlog.ready) == (1, 1, 2)
    items = ledger.take_more(stayer, 100, 60)
    assert items is not None and offsets(items) == [1, 2]
    assert {(item.state, item.run_id) for item in items} == {(State.RUNNING, stayer.run_id)}
    ledger.leave(stayer)
    assert ledger.close_finished_runs() == []
    for item in items:
        ledger.written(ledger.inferred(item, DRAFTS), DONE)
    [closed] = ledger.close_finished_runs()
    assert (closed.run_id, closed.taken) == (stayer.run_id, 2)
    assert ledger.take_more(stayer, 100, 60) is None
    assert not ledger.stay(stayer, begins=True)
    assert ledger.account().unaccounted == 0


def test_it_takes_by_the_rules_of_a_new_run(ledger: Ledger, make) -> None:
    ledger.record([make(0, patient="busy")])
    stayer = begins(ledger)
    ledger.record([make(1, patient="busy"), make(2, patient="parked")])
    other = ledger.take_run(NOTE, 2)
    assert other is not None
    _, parks = ledger.claim(other.run_id, 60)
    assert ledger.failed(parks, StepFailed(ErrorClass.FHIR_REJECTED, "never")) is not State.PARKED
    for _ in range(2):
        run = ledger.take_run(NOTE, 1)
        assert run is not None
        ledger.failed(ledger.claim(run.run_id, 60)[0], StepFailed(ErrorClass.FHIR_REJECTED, "never"))
    ledger.record(
        [
            make(3, patient="busy"),  # another run has its patient
            make(4, patient="parked"),  # behind a dead letter: its rules alone
            make(5, patient="c", resource="r", version="1", updated=1),
            make(6, patient="c", resource="r", version="2", updated=2),  # the version before it becomes stale
        ]
    )
    items = ledger.take_more(stayer, 100, 60)
    assert items is not None
    assert [(item.event.position.offset, item.rules_only) for item in items] == [(4, True), (6, False)]
    ledger.switch_off("scenario", NOTE, by="me", why="so")
    ledger.record([make(7, patient="d")])
    assert ledger.take_more(stayer, 100, 60) == []
    assert not ledger.stay(stayer)


def test_rows_over_which_a_worker_was_lost_are_left_to_runs_of_their_own(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    stayer = begins(ledger)
    ledger.record([make(1, patient="killer")])
    run = ledger.take_run(NOTE, 1)
    assert run is not None
    ledger.claim(run.run_id, 60)
    ledger.release_run(run.run_id, "failed")
    ledger.record([make(2, patient="b")])
    assert ledger.take_more(stayer, 100, 60) == [], "none is skipped"
    again = ledger.take_run(NOTE, 100)
    assert again is not None and offsets(ledger.claim(again.run_id, 60)) == [1]
    items = ledger.take_more(stayer, 100, 60)
    assert items is not None and offsets(items) == [2]


def test_who_has_not_said_so_for_too_long_stays_no_more_and_takes_nothing(
    ledger: Ledger, ledger_engine: Engine, make
) -> None:
    ledger.record([make(0)])
    stayer = begins(ledger)
    ledger.record([make(1)])
    age(ledger_engine, "UPDATE runs SET stays_until = now() - interval '1 second'")
    assert ledger.take_more(stayer, 100, 60) is None
    assert ledger.backlog()[0].staying == 0
    assert len(ledger.close_finished_runs()) == 1
    assert not ledger.stay(stayer)


def test_another_try_of_the_run_displaces_who_stayed_before(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    older = begins(ledger)
    newer = Stayer.new(older.run_id, rank=3, most=2, slots=4, seconds=5)
    assert not ledger.stay(newer)
    assert ledger.stay(newer, begins=True)
    ledger.record([make(1)])
    assert not ledger.stay(older)
    assert ledger.take_more(older, 100, 60) is None
    ledger.leave(older)
    items = ledger.take_more(newer, 100, 60)
    assert items is not None and len(items) == 1


def test_a_withdrawal_holds_for_the_run_and_not_for_the_next(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    stayer = begins(ledger)
    assert ledger.withdraw(["in_visit.other"]) == 0
    assert ledger.withdraw([NOTE]) == 1
    ledger.record([make(1)])
    assert ledger.take_more(stayer, 100, 60) is None
    assert not ledger.stay(stayer, begins=True)
    assert len(ledger.close_finished_runs()) == 1
    assert ledger.stay(begins(ledger))
    assert ledger.withdraw() == 1


def test_no_more_stay_than_may_and_a_higher_rank_displaces_a_lower_one(ledger: Ledger, make) -> None:
    for offset, scenario in enumerate(("post_visit.a", "pre_visit.b", "in_visit.c")):
        ledger.record([make(offset, scenarios=(scenario,))])
    later = begins(ledger, rank=1, scenario="post_visit.a")
    before = begins(ledger, rank=2, scenario="pre_visit.b")
    first = begins(ledger, rank=3, scenario="in_visit.c")
    assert ledger.stay(first)
    assert ledger.stay(before)
    assert not ledger.stay(later)


def test_while_a_run_waits_for_a_slot_as_many_leave_as_wait_the_lowest_first(
    ledger: Ledger, ledger_engine: Engine, make
) -> None:
    ledger.record([make(0, scenarios=("post_visit.a",))])
    lower = begins(ledger, rank=1, slots=2, scenario="post_visit.a")
    ledger.record([make(1, scenarios=("in_visit.c",))])
    higher = begins(ledger, rank=3, slots=2, scenario="in_visit.c")
    ledger.record([make(2)])
    waits = ledger.take_run(NOTE, 1)
    assert waits is not None
    ledger.run_posted(waits.run_id)
    assert ledger.stay(lower), "it was posted a moment ago"
    age(ledger_engine, "UPDATE runs SET posted_at = now() - interval '3 seconds' WHERE started_at IS NULL")
    assert ledger.stay(higher)
    assert not ledger.stay(lower)
    ledger.claim(waits.run_id, 60)
    assert ledger.stay(higher)


@pytest.mark.parametrize("ends", ["closed", "released"])
def test_a_run_that_is_taking_rows_is_not_closed_or_released_under_them(
    ledger: Ledger, ledger_engine: Engine, make, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The one who ends the run comes while the rows are bound and not committed, and finds the lease run out."""
    from pipelines.ledger import staying

    ledger.record([make(0)])
    stayer = begins(ledger)
    ledger.record([make(1)])
    ready, ended = staying.ready, threading.Event()

    def end() -> None:
        if ends == "closed":
            ledger.close_finished_runs()
        else:
            ledger.release_run(stayer.run_id, "failed")
        ended.set()

    def slowly(*arguments: Any, **named: Any) -> Any:
        found = ready(*arguments, **named)
        threading.Thread(target=end).start()
        ended.wait(0.5)
        return found

    monkeypatch.setattr(staying, "ready", slowly)
    items = ledger.take_more(stayer, 100, 60)
    assert items is not None and offsets(items) == [1]
    assert ended.wait(10)
    [open_run] = ledger.open_runs() or [None]
    if ends == "closed":
        assert open_run is not None
        ledger.written(ledger.inferred(items[0], DRAFTS), DONE)
    else:
        assert open_run is None
        with pytest.raises(LeaseLost):
            ledger.inferred(items[0], DRAFTS)
        assert ledger.backlog()[0].waiting == 1


def stands(ledger: Ledger, scenario: str = NOTE) -> Stayer:
    """A run without rows that was decided on, has begun and stays."""
    run = ledger.stand(scenario)
    assert run is not None
    ledger.run_posted(run.run_id)
    assert ledger.claim(run.run_id, 60) == []
    assert ledger.stands(run.run_id, 5) == scenario
    stayer = Stayer.new(run.run_id, rank=6, most=2, slots=4, seconds=5)
    assert ledger.stay(stayer, begins=True)
    return stayer


def test_a_standing_run_has_no_rows_is_open_until_it_has_begun_and_takes_the_first_that_come(
    ledger: Ledger, make, ledger_engine: Engine
) -> None:
    run = ledger.stand(NOTE)
    assert run is not None
    assert ledger.close_finished_runs() == [], "its task may be minutes in coming"
    assert ledger.stands(run.run_id, 5) == NOTE
    assert ledger.close_finished_runs() == [], "from its first word to its stay it is not finished either"
    stayer = Stayer.new(run.run_id, rank=6, most=2, slots=4, seconds=5)
    assert ledger.stay(stayer, begins=True)
    ledger.record([make(0)])
    items = ledger.take_more(stayer, 100, 60)
    assert items is not None and offsets(items) == [0]
    for item in items:
        ledger.written(ledger.inferred(item, DRAFTS), DONE)
    age(ledger_engine, "UPDATE runs SET stays_until = now()")
    [closed] = ledger.close_finished_runs()
    assert (closed.size, closed.taken) == (0, 1)
    assert ledger.account().unaccounted == 0


def test_of_two_dispatchers_one_decides_on_a_standing_run_and_none_beside_a_run_that_is_open(
    ledger: Ledger, make
) -> None:
    stands(ledger)
    assert ledger.stand(NOTE) is None
    assert ledger.stand("in_visit.other") is not None
    ledger.record([make(0)])
    assert ledger.take_run(NOTE, 10) is not None, "a run of its own for what it does not take"


@pytest.mark.parametrize("switch", [("scenario", NOTE), ("everything", "")])
def test_nothing_stands_for_a_scenario_that_is_switched_off(ledger: Ledger, switch: tuple[str, str]) -> None:
    ledger.switch_off(*switch, by="a nurse", why="it is wrong")
    assert ledger.stand(NOTE) is None


def test_a_standing_run_that_was_told_to_go_before_it_began_does_not_begin(ledger: Ledger) -> None:
    run = ledger.stand(NOTE)
    assert run is not None
    ledger.withdraw({NOTE})
    assert ledger.stands(run.run_id, 5) is None
    assert [closed.run_id for closed in ledger.close_finished_runs()] == [run.run_id]
    assert ledger.stands(run.run_id, 5) is None


def test_a_run_of_rows_that_another_has_does_not_stand(ledger: Ledger, make) -> None:
    ledger.record([make(0)])
    run = ledger.take_run(NOTE, 100)
    assert run is not None
    ledger.release_run(run.run_id, "failed")
    assert ledger.claim(run.run_id, 60) == []
    assert ledger.stands(run.run_id, 5) is None


def test_a_backlog_tells_what_waits_for_a_person_from_what_goes_on_by_itself(ledger: Ledger, make) -> None:
    ledger.record([make(0, patient="parked"), make(1, patient="slow")])
    for _ in range(3):  # as many attempts as the ledger of these tests gives
        run = ledger.take_run(NOTE, 1)
        assert run is not None
        ledger.failed(ledger.claim(run.run_id, 60)[0], StepFailed(ErrorClass.FHIR_REJECTED, "never"))
    ledger.record([make(2, patient="parked"), make(3, patient="parked"), make(4, patient="slow")])
    [backlog] = ledger.backlog()
    assert (backlog.waiting, backlog.for_a_person) == (4, 2)
